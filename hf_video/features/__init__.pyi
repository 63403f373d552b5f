from .embed import EmbedReport as EmbedReport
from .embed import ModelLoader as ModelLoader
from .embed import embed_videos as embed_videos
from .extraction import Features as Features
from .extraction import extract_features as extract_features
from .shards import load_features as load_features

from .labels import annotate_video as annotate_video
from .overlay import DrawnVideo as DrawnVideo
from .overlay import draw_on_video as draw_on_video

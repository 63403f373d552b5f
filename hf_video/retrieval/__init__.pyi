from .index import IndexReport as IndexReport
from .index import VideoIndex as VideoIndex
from .moments import Moment as Moment

from .videos import CheckReport as CheckReport
from .videos import Duplicates as Duplicates
from .videos import check_videos as check_videos
from .videos import find_duplicates as find_duplicates

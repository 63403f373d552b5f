from .anomalies import AnomalyDetector as AnomalyDetector
from .index import VideoIndex as VideoIndex
from .moments import Moment as Moment
from .moments import merge_overlapping as merge_overlapping
from .update_plan import IndexReport as IndexReport

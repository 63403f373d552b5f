from .base import VideoPipeline as VideoPipeline
from .repetitions import RepetitionCount as RepetitionCount
from .repetitions import count_repetitions as count_repetitions
from .spatio_temporal_action_detection import PeopleEvents as PeopleEvents
from .spatio_temporal_action_detection import (
    SpatioTemporalActionDetectionPipeline as SpatioTemporalActionDetectionPipeline,
)
<<<<<<< HEAD
from .temporal_action_detection import TemporalActionDetectionPipeline as TemporalActionDetectionPipeline
=======
>>>>>>> 52f9e8b (AdaTAD: VideoMAE with temporal adapters and a detector, trained end to end; new detectors begin with scores at their prior)
from .video_classification import VideoClassificationPipeline as VideoClassificationPipeline
from .video_feature_extraction import VideoFeatureExtractionPipeline as VideoFeatureExtractionPipeline
from .video_moment_retrieval import VideoMomentRetrievalPipeline as VideoMomentRetrievalPipeline
from .video_question_answering import VideoQuestionAnsweringPipeline as VideoQuestionAnsweringPipeline
from .video_text_retrieval import VideoTextRetrievalPipeline as VideoTextRetrievalPipeline
from .zero_shot_video_classification import ZeroShotVideoClassificationPipeline as ZeroShotVideoClassificationPipeline

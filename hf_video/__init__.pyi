from .auto import register_auto_classes as register_auto_classes
from .base.convert import from_official as from_official
from .base.detection.events import Events as Events
from .base.detection.sheet import event_sheet as event_sheet
from .base.detection.types import Detection as Detection
from .base.detection.types import write_detections as write_detections
from .base.fast_numbers import fast_dtype as fast_dtype
from .base.fast_numbers import for_processor as for_processor
from .base.version import __version__ as __version__
from .errors import HFVideoError as HFVideoError
from .features.compiled import compile_model as compile_model
from .models.actionformer.configuration_actionformer import ActionFormerConfig as ActionFormerConfig
from .models.actionformer.modeling_actionformer import (
    ActionFormerForTemporalActionDetection as ActionFormerForTemporalActionDetection,
)
from .models.actionformer.modeling_actionformer import ActionFormerModel as ActionFormerModel
from .models.adatad.configuration_adatad import AdaTADConfig as AdaTADConfig
from .models.adatad.image_processing_adatad import AdaTADImageProcessor as AdaTADImageProcessor
from .models.adatad.image_processing_adatad import AdaTADVideoProcessor as AdaTADVideoProcessor
from .models.adatad.modeling_adatad import (
    AdaTADForTemporalActionDetection as AdaTADForTemporalActionDetection,
)
from .models.adatad.modeling_adatad import AdaTADModel as AdaTADModel
from .models.c3d.configuration_c3d import C3DConfig as C3DConfig
from .models.c3d.image_processing_c3d import (
    C3DImageProcessor as C3DImageProcessor,
)
from .models.c3d.image_processing_c3d import (
    C3DVideoProcessor as C3DVideoProcessor,
)
from .models.c3d.modeling_c3d import C3DForVideoClassification as C3DForVideoClassification
from .models.c3d.modeling_c3d import C3DModel as C3DModel
from .models.i3d.configuration_i3d import I3DConfig as I3DConfig
from .models.i3d.image_processing_i3d import (
    I3DImageProcessor as I3DImageProcessor,
)
from .models.i3d.image_processing_i3d import (
    I3DVideoProcessor as I3DVideoProcessor,
)
from .models.i3d.modeling_i3d import I3DForVideoClassification as I3DForVideoClassification
from .models.i3d.modeling_i3d import I3DModel as I3DModel
from .models.mil_ranking.configuration_mil_ranking import MILRankingConfig as MILRankingConfig
from .models.mil_ranking.modeling_mil_ranking import MILRankingForAnomalyDetection as MILRankingForAnomalyDetection
from .models.moment_detr.configuration_moment_detr import MomentDetrConfig as MomentDetrConfig
from .models.moment_detr.modeling_moment_detr import MomentDetrForMomentRetrieval as MomentDetrForMomentRetrieval
from .models.mvit.configuration_mvit import MViTConfig as MViTConfig
from .models.mvit.image_processing_mvit import (
    MViTImageProcessor as MViTImageProcessor,
)
from .models.mvit.image_processing_mvit import (
    MViTVideoProcessor as MViTVideoProcessor,
)
from .models.mvit.modeling_mvit import (
    MViTForVideoClassification as MViTForVideoClassification,
)
from .models.mvit.modeling_mvit import (
    MViTModel as MViTModel,
)
from .models.rtfm.configuration_rtfm import RTFMConfig as RTFMConfig
from .models.rtfm.modeling_rtfm import RTFMForAnomalyDetection as RTFMForAnomalyDetection
from .models.s3d.configuration_s3d import S3DConfig as S3DConfig
from .models.s3d.image_processing_s3d import (
    S3DImageProcessor as S3DImageProcessor,
)
from .models.s3d.image_processing_s3d import (
    S3DVideoProcessor as S3DVideoProcessor,
)
from .models.s3d.modeling_s3d import S3DModel as S3DModel
from .models.slowfast.configuration_slowfast import SlowFastConfig as SlowFastConfig
from .models.slowfast.image_processing_slowfast import (
    SlowFastImageProcessor as SlowFastImageProcessor,
)
from .models.slowfast.image_processing_slowfast import (
    SlowFastVideoProcessor as SlowFastVideoProcessor,
)
from .models.slowfast.modeling_slowfast import (
    SlowFastForSpatioTemporalActionDetection as SlowFastForSpatioTemporalActionDetection,
)
from .models.slowfast.modeling_slowfast import (
    SlowFastForVideoClassification as SlowFastForVideoClassification,
)
from .models.slowfast.modeling_slowfast import (
    SlowFastModel as SlowFastModel,
)
from .models.timesformer.configuration_timesformer import TimesformerConfig as TimesformerConfig
from .models.timesformer.image_processing_timesformer import (
    TimesformerImageProcessor as TimesformerImageProcessor,
)
from .models.timesformer.image_processing_timesformer import (
    TimesformerVideoProcessor as TimesformerVideoProcessor,
)
from .models.timesformer.modeling_timesformer import (
    TimesformerForVideoClassification as TimesformerForVideoClassification,
)
from .models.timesformer.modeling_timesformer import (
    TimesformerModel as TimesformerModel,
)
from .models.tridet.configuration_tridet import TriDetConfig as TriDetConfig
from .models.tridet.modeling_tridet import TriDetForTemporalActionDetection as TriDetForTemporalActionDetection
from .models.tridet.modeling_tridet import TriDetModel as TriDetModel
from .models.two_stream.configuration_two_stream import TwoStreamConfig as TwoStreamConfig
from .models.two_stream.image_processing_two_stream import (
    TwoStreamImageProcessor as TwoStreamImageProcessor,
)
from .models.two_stream.image_processing_two_stream import (
    TwoStreamVideoProcessor as TwoStreamVideoProcessor,
)
from .models.two_stream.modeling_two_stream import (
    TwoStreamForVideoClassification as TwoStreamForVideoClassification,
)
from .models.two_stream.modeling_two_stream import (
    TwoStreamModel as TwoStreamModel,
)
from .models.video_swin.configuration_video_swin import VideoSwinConfig as VideoSwinConfig
from .models.video_swin.image_processing_video_swin import (
    VideoSwinImageProcessor as VideoSwinImageProcessor,
)
from .models.video_swin.image_processing_video_swin import (
    VideoSwinVideoProcessor as VideoSwinVideoProcessor,
)
from .models.video_swin.modeling_video_swin import (
    VideoSwinForVideoClassification as VideoSwinForVideoClassification,
)
from .models.video_swin.modeling_video_swin import (
    VideoSwinModel as VideoSwinModel,
)
from .models.videoclip.configuration_videoclip import VideoCLIPConfig as VideoCLIPConfig
from .models.videoclip.from_image_text import video_clip as video_clip
from .models.videoclip.image_processing_videoclip import (
    VideoCLIPImageProcessor as VideoCLIPImageProcessor,
)
from .models.videoclip.image_processing_videoclip import (
    VideoCLIPVideoProcessor as VideoCLIPVideoProcessor,
)
from .models.videoclip.modeling_videoclip import VideoCLIPModel as VideoCLIPModel
from .models.videoclip.processing_videoclip import VideoCLIPProcessor as VideoCLIPProcessor
from .models.videomae.configuration_videomae import VideoMAEConfig as VideoMAEConfig
from .models.videomae.image_processing_videomae import (
    VideoMAEImageProcessor as VideoMAEImageProcessor,
)
from .models.videomae.image_processing_videomae import (
    VideoMAEVideoProcessor as VideoMAEVideoProcessor,
)
from .models.videomae.modeling_videomae import (
    VideoMAEForPreTraining as VideoMAEForPreTraining,
)
from .models.videomae.modeling_videomae import (
    VideoMAEForSpatioTemporalActionDetection as VideoMAEForSpatioTemporalActionDetection,
)
from .models.videomae.modeling_videomae import (
    VideoMAEForVideoClassification as VideoMAEForVideoClassification,
)
from .models.videomae.modeling_videomae import (
    VideoMAEModel as VideoMAEModel,
)
from .models.videoprism.configuration_videoprism import VideoPrismConfig as VideoPrismConfig
from .models.videoprism.configuration_videoprism import (
    VideoPrismTextConfig as VideoPrismTextConfig,
)
from .models.videoprism.configuration_videoprism import (
    VideoPrismVisionConfig as VideoPrismVisionConfig,
)
from .models.videoprism.image_processing_videoprism import (
    VideoPrismImageProcessor as VideoPrismImageProcessor,
)
from .models.videoprism.image_processing_videoprism import (
    VideoPrismVideoProcessor as VideoPrismVideoProcessor,
)
from .models.videoprism.modeling_videoprism import VideoPrismClipModel as VideoPrismClipModel
from .models.videoprism.modeling_videoprism import (
    VideoPrismForVideoClassification as VideoPrismForVideoClassification,
)
from .models.videoprism.modeling_videoprism import VideoPrismTextModel as VideoPrismTextModel
from .models.videoprism.modeling_videoprism import VideoPrismVideoModel as VideoPrismVideoModel
from .models.videoprism.modeling_videoprism import VideoPrismVisionModel as VideoPrismVisionModel
from .models.videoprism.processing_videoprism import VideoPrismProcessor as VideoPrismProcessor
from .models.violet.configuration_violet import VioletConfig as VioletConfig
from .models.violet.image_processing_violet import (
    VioletImageProcessor as VioletImageProcessor,
)
from .models.violet.image_processing_violet import (
    VioletVideoProcessor as VioletVideoProcessor,
)
from .models.violet.modeling_violet import (
    VioletForMultipleChoice as VioletForMultipleChoice,
)
from .models.violet.modeling_violet import (
    VioletForPreTraining as VioletForPreTraining,
)
from .models.violet.modeling_violet import (
    VioletForQuestionAnswering as VioletForQuestionAnswering,
)
from .models.violet.modeling_violet import (
    VioletForVideoTextRetrieval as VioletForVideoTextRetrieval,
)
from .models.violet.modeling_violet import (
    VioletModel as VioletModel,
)
from .models.violet.modeling_violet import (
    VioletVisualTokenizer as VioletVisualTokenizer,
)
from .models.violet.modeling_violet import (
    VioletVisualTokenizerConfig as VioletVisualTokenizerConfig,
)
from .models.violet.processing_violet import VioletProcessor as VioletProcessor
from .models.vivit.configuration_vivit import VivitConfig as VivitConfig
from .models.vivit.image_processing_vivit import (
    VivitImageProcessor as VivitImageProcessor,
)
from .models.vivit.image_processing_vivit import (
    VivitVideoProcessor as VivitVideoProcessor,
)
from .models.vivit.modeling_vivit import (
    VivitForVideoClassification as VivitForVideoClassification,
)
from .models.vivit.modeling_vivit import (
    VivitModel as VivitModel,
)
from .models.vjepa2.configuration_vjepa2 import VJEPA2Config as VJEPA2Config
from .models.vjepa2.image_processing_vjepa2 import (
    VJEPA2ImageProcessor as VJEPA2ImageProcessor,
)
from .models.vjepa2.image_processing_vjepa2 import (
    VJEPA2VideoProcessor as VJEPA2VideoProcessor,
)
from .models.vjepa2.modeling_vjepa2 import (
    VJEPA2ForPreTraining as VJEPA2ForPreTraining,
)
from .models.vjepa2.modeling_vjepa2 import (
    VJEPA2ForVideoClassification as VJEPA2ForVideoClassification,
)
from .models.vjepa2.modeling_vjepa2 import VJEPA2Model as VJEPA2Model
from .models.x3d.configuration_x3d import X3DConfig as X3DConfig
from .models.x3d.image_processing_x3d import (
    X3DImageProcessor as X3DImageProcessor,
)
from .models.x3d.image_processing_x3d import (
    X3DVideoProcessor as X3DVideoProcessor,
)
from .models.x3d.modeling_x3d import X3DForVideoClassification as X3DForVideoClassification
from .models.x3d.modeling_x3d import X3DModel as X3DModel
from .pipelines.live_detection import LiveDetector as LiveDetector
from .pipelines.repetitions import count_repetitions as count_repetitions
from .pipelines.streaming_classification import StreamingClassifier as StreamingClassifier
from .pipelines.temporal_action_detection import TemporalActionDetectionPipeline as TemporalActionDetectionPipeline
from .pipelines.video_classification import VideoClassificationPipeline as VideoClassificationPipeline
from .pipelines.video_feature_extraction import VideoFeatureExtractionPipeline as VideoFeatureExtractionPipeline
from .pipelines.video_moment_retrieval import VideoMomentRetrievalPipeline as VideoMomentRetrievalPipeline
from .pipelines.video_question_answering import VideoQuestionAnsweringPipeline as VideoQuestionAnsweringPipeline
from .pipelines.video_text_retrieval import VideoTextRetrievalPipeline as VideoTextRetrievalPipeline
from .pipelines.zero_shot_video_classification import (
    ZeroShotVideoClassificationPipeline as ZeroShotVideoClassificationPipeline,
)
from .registry import DETECTORS as DETECTORS
from .registry import MODELS as MODELS
from .video.frames.types import VideoFrames as VideoFrames
from .video.live.live_video import LiveVideo as LiveVideo
from .video.reader import VideoReader as VideoReader
from .video.writer import write_video as write_video

from .page import LivePage as LivePage
from .watch import LiveResult as LiveResult
from .watch import Watch as Watch

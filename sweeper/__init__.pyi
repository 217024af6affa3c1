from sweeper.check.report import check_study as check_study
from sweeper.config.loader import load_study as load_study
from sweeper.config.study import StudyConfig as StudyConfig
from sweeper.errors import SweeperError as SweeperError
from sweeper.study.pipeline import resume_pipeline as resume_pipeline
from sweeper.study.pipeline import run_pipeline as run_pipeline
from sweeper.study.run import resume_study as resume_study
from sweeper.study.run import run_study as run_study

__version__: str

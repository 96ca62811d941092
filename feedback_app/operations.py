"""One method for each thing that a button or a command does: the app's own interface.

Arguments are plain, results can be written as JSON. The tabs call these methods directly, commands
call them over loopback when an app is running and directly when none is. Mistakes raise AppError.
"""

from __future__ import annotations

from feedback_app.auth import Sessions
from feedback_app.jobs import Jobs
from feedback_app.operations_care import CareOperations
from feedback_app.operations_data import DataOperations
from feedback_app.operations_dry_runs import DryRunOperations
from feedback_app.operations_library import LibraryOperations
from feedback_app.operations_people import PeopleOperations
from feedback_app.operations_results import ResultsOperations
from feedback_app.operations_training import TrainingOperations
from feedback_app.operations_versions import VersionOperations
from feedback_app.settings import Settings
from feedback_app.store import Store
from feedback_app.workspace import Workspace

# What commands may ask of a running app over loopback.
CONTROLS = frozenset(
    {
        "add_songs", "list_songs", "set_split", "correct_beats", "remove_song", "prepare",
        "generate_pairs", "rank_pairs",
        "rebuild_bootstrap", "retrain_reward", "train_policy", "run_round", "simulate",
        "promote", "reject", "roll_back",
        "list_policies", "list_reward_models", "delete_version", "make_examples", "compare",
        "queue", "judges", "dry_runs", "dry_run_view", "remove_dry_run", "cancel_dry_run",
        "list_runs", "run_view", "cancel_run", "resume_run",
        "results", "list_annotators", "add_user", "set_password", "set_disabled", "set_weight",
        "people", "search_votes", "weight_effect", "undo_weight", "find_pairs",
        "export", "preview_export", "export_choices", "sql", "import_votes", "export_pairs",
        "pairs_overview", "status", "backup", "doctor",
    }
)  # fmt: skip


class Operations(
    PeopleOperations,
    ResultsOperations,
    LibraryOperations,
    TrainingOperations,
    VersionOperations,
    DryRunOperations,
    DataOperations,
    CareOperations,
):
    """Everything that people and commands can ask of the app."""

    def __init__(
        self,
        store: Store,
        workspace: Workspace,
        settings: Settings,
        sessions: Sessions,
        jobs: Jobs,
    ) -> None:
        self.store = store
        self.workspace = workspace
        self.settings = settings
        self.sessions = sessions
        self.jobs = jobs

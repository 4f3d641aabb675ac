"""The calls of all three roles in one, for tests that play more than one of them."""

from kbroker.launch_record import LaunchRecords
from kbroker.launcher_record import LauncherRecords
from kbroker.watcher_record import WatcherRecords


class Records(LaunchRecords, LauncherRecords, WatcherRecords):
    """Whatever an executor, a launcher or the leading watcher may call."""

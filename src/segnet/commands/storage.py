"""Where a search keeps its trials: a database of its own, or one that workers on several machines share."""

import os
import time
import warnings
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from segnet import passwords
from segnet.errors import UserError

BEAT = 60  # seconds between the signs of life of a trial; after two without one it has failed, and is tried once more


def own(folder: Path) -> optuna.storages.RDBStorage:
    """A database in the run folder, for this process alone."""
    where = f"file:{quote(str((folder / 'study.db').resolve()))}"  # an address: a path may hold a ? or a %
    return optuna.storages.RDBStorage(f"sqlite:///{quote(where, safe='/:')}?uri=true")


def repetition(trial: FrozenTrial) -> FrozenTrial:
    """A trial to wait that counts in the place of one that was killed, as `Retry` makes it for shared storage."""
    before = trial.system_attrs.get("retry_history", [])
    history = {"failed_trial": trial.number, "retry_history": [*before, trial.number]}
    return optuna.create_trial(
        state=TrialState.WAITING, params=trial.params, distributions=trial.distributions, system_attrs=history
    )


def shared(url: str) -> optuna.storages.RDBStorage:
    """A database that several workers use at the same time; its tables are made where they are missing.

    Args:
        url: without a password: that is found in the environment, see `segnet.passwords`.

    Raises:
        UserError: the driver is not installed.
    """
    where = make_url(url)
    if where.drivername in ("postgresql", "postgres"):  # the driver of the extra, whatever SQLAlchemy's default is
        where = where.set(drivername="postgresql+psycopg")
    if where.password is None and where.username is not None and (password := os.environ.get(passwords.KEY)):
        where = where.set(password=password)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in range(5):
            try:
                return optuna.storages.RDBStorage(
                    where.render_as_string(hide_password=False),
                    engine_kwargs={"pool_pre_ping": True},  # a trial takes hours, and servers close idle connections
                    heartbeat_interval=BEAT,
                    heartbeat_stale_trial_callback=Retry(max_retry=1),
                )
            except ImportError as error:
                extra = ": pip install 'segnet-lightning[postgresql]'" if "psycopg" in where.drivername else ""
                told = f"its driver is not installed ({error.__cause__ or error}){extra}"
                raise UserError(f"storage={passwords.masked(url)}: {told}") from error
            except (IntegrityError, ProgrammingError):  # another worker is making the tables
                if attempt == 4:
                    raise
                time.sleep(1)
    raise AssertionError


def ready(study: optuna.Study, trials: int) -> bool:
    """Whether one more trial is to be begun: waits for those of other workers while there may be; False at the end.

    A trial whose worker has died has failed, and is tried once more: its repetition counts in its place.
    """
    told = False
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
            found = study.get_trials(deepcopy=False)
            repeated = {number for trial in found for number in Retry.retry_history(trial)}
        states = [trial.state for trial in found if trial.number not in repeated]
        finished, running = sum(state.is_finished() for state in states), states.count(TrialState.RUNNING)
        if finished >= trials or finished + running < trials:
            return finished < trials
        if not told:
            print(f"waiting for {running} trials of other workers; Ctrl-C leaves them alone", flush=True)
            told = True
        time.sleep(min(5, BEAT))

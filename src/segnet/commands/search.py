"""An Optuna study over the training configuration: search space, trials, pruning, and what it leaves behind."""

import gc
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra import compose
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from segnet.commands import storage, train
from segnet.commands.trials import experiment, overrides_of
from segnet.errors import UserError, explain
from segnet.files import csv_file
from segnet.old_names import update_targets
from segnet.runs import record
from segnet.terminal import named
from segnet.training.selection import undefined

Space = dict[str, dict[str, Any]]


class Prune(Callback):
    """Reports the monitored metric after every validation and ends a trial that is below the median of the others."""

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self._new = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The figures of validation are new."""
        self._new = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric; end the trial if the pruner says so."""
        new, self._new = self._new or not self.monitor.startswith("val/"), False
        value = trainer.callback_metrics.get(self.monitor)
        if new and value is not None and not undefined(trainer, self.monitor):
            self.trial.report(float(value), trainer.current_epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned(f"{self.monitor} {float(value):.4f} in epoch {trainer.current_epoch}")


def space(search: DictConfig) -> Space:
    """The search space, checked.

    Raises:
        UserError: an entry that is neither choices nor a range, or empty.
    """
    entries: Any = OmegaConf.to_container(search, resolve=True) if search else {}
    if not entries:
        raise UserError("search: names nothing to vary; see conf/search/default.yaml")
    for key, entry in entries.items():
        choices = isinstance(entry, dict) and set(entry) == {"choices"} and bool(entry["choices"])
        interval = isinstance(entry, dict) and {"low", "high"} <= set(entry) <= {"low", "high", "log", "step"}
        if not choices and not (interval and entry["low"] < entry["high"]):
            raise UserError(f"search.{key}={entry}: must be {{choices: [...]}} or {{low: a, high: b}} with a < b")
    return dict(entries)


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A value for every key of the space."""
    values: dict[str, Any] = {}
    for key, entry in space.items():
        if "choices" in entry:
            values[key] = trial.suggest_categorical(key, entry["choices"])
        elif type(entry["low"]) is int and type(entry["high"]) is int:
            options = {"step": entry.get("step", 1), "log": entry.get("log", False)}
            values[key] = trial.suggest_int(key, entry["low"], entry["high"], **options)
        else:
            options = {"step": entry.get("step"), "log": entry.get("log", False)}
            values[key] = trial.suggest_float(key, entry["low"], entry["high"], **options)
    return values


def open_study(cfg: DictConfig) -> optuna.Study:
    """Create or resume the study; a trial that was killed is counted as failed and tried once more."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    own = cfg.storage is None
    database = storage.own(folder) if own else storage.shared(cfg.storage)
    found = optuna.create_study(
        storage=database,
        study_name=cfg.study,
        direction="maximize" if cfg.mode == "max" else "minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(cfg.prune.startup_trials, cfg.prune.warmup_epochs),
    )
    if own:
        for trial in found.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            found.tell(trial.number, state=TrialState.FAIL)
            found.add_trial(storage.repetition(trial))
    return found


def search(study: optuna.Study, cfg: DictConfig, space: Space, given: Sequence[str], source: str | None = None) -> None:
    """Train trial after trial; a failed one is reported and counted, and the study continues.

    Args:
        study: to continue.
        cfg: of conf/tune.yaml.
        space: what is varied.
        given: overrides of all trials.
        source: what errors call a study that someone else may have made: its trials are checked; None: the user's own.
    """

    def objective(trial: optuna.Trial) -> float:
        # Of its own number: neither a resumed study nor a second worker draws the same once more.
        study.sampler = optuna.samplers.TPESampler(seed=(cfg.seed + trial.number) % 2**32)
        overrides = [*given, *overrides_of(suggest(trial, space))]
        folder = Path(cfg.output_dir) / str(trial.number)
        if source is not None:
            record.check_overrides(overrides, source)
        config = compose("train", overrides)
        update_targets(config)
        OmegaConf.set_struct(config, False)
        config.pop("hydra", None)
        config.output_dir = str(folder)
        config.trust, config.verbose = cfg.trust, cfg.verbose
        if source is not None:
            record.check(config, source)
        record.write(config, overrides, folder)
        try:
            with named(f"trial {trial.number}"):
                print(shlex.join(overrides_of(trial.params)))
                value = train.run(config, [Prune(trial, cfg.monitor)])
        except Exception as error:
            if not isinstance(error, optuna.TrialPruned):
                print(f"trial {trial.number} failed: {explain(error) or repr(error)}")
            raise
        finally:
            gc.collect()
        if value is None:
            raise UserError(f"the training made no checkpoint, or {cfg.monitor} was never defined")
        return value

    while storage.ready(study, cfg.trials):
        study.optimize(objective, n_trials=1, catch=(Exception,))


def report(study: optuna.Study, folder: Path, given: Sequence[str], source: str | None = None) -> FrozenTrial:
    """Write trials.csv, best.yaml, history.png and importance.png; the best trial.

    Raises:
        UserError: no trial was completed; or the best one of a study from ``source`` sets what a file must not.
    """
    trials = study.get_trials(deepcopy=False)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    with csv_file(folder / "trials.csv") as write:
        write(["number", "state", "value", *keys])
        for trial in trials:
            write([trial.number, trial.state.name, trial.value, *(trial.params.get(key, "") for key in keys)])
    states = [trial.state for trial in trials]
    print(
        f"{states.count(TrialState.COMPLETE)} trials completed, {states.count(TrialState.PRUNED)} pruned, "
        f"{states.count(TrialState.FAIL)} failed"
    )
    if TrialState.COMPLETE not in states:
        raise UserError(f"none of {len(trials)} trials was completed; the reasons are above")
    best = study.best_trial
    if source is not None:  # a user may copy best.yaml to conf/experiment/, from where everything is built
        chosen = [*given, *overrides_of(best.params)]
        record.check_overrides(chosen, source)
        config = compose("train", chosen)
        config.output_dir = str(folder)
        record.check(config, source)
    (folder / "best.yaml").write_text(experiment(best, given), encoding="utf-8")
    history(study).savefig(folder / "history.png", dpi=110)
    if states.count(TrialState.COMPLETE) > 3 and len(keys) > 1:
        importance(study).savefig(folder / "importance.png", dpi=110)
    return best


def history(study: optuna.Study) -> Figure:
    """Every trial's value, and the best so far."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers, values = [t.number for t in done], [float(t.value or 0) for t in done]
    best = [sign * max(sign * v for v in values[: i + 1]) for i in range(len(values))]
    axes.plot(numbers, values, "o", label="trial")
    axes.plot(numbers, best, label="best so far")
    axes.set(xlabel="trial", ylabel="value")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def importance(study: optuna.Study) -> Figure:
    """How much each parameter decides (Watanabe et al., PED-ANOVA, IJCAI 2023)."""
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Target and region quantiles")  # all trials alike, and so all bars
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure = Figure(figsize=(7, 1 + 0.5 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(found)[::-1], list(found.values())[::-1])
    axes.set(xlabel="importance")
    return figure

"""The name that is not known in a message, and the known one that was meant."""

import difflib
import re
from collections.abc import Collection, Iterable

_MEANT = {
    "max_epochs": "epoch epochs num_epochs n_epochs num_train_epochs",
    "max_steps": "step steps num_steps iterations iters max_iters max_iterations",
    "lr": "learning_rate learningrate rate base_lr",
    "batch_size": "batch batchsize bs batch_sizes per_device_train_batch_size",
    "devices": "gpus gpu num_gpus device n_gpu num_devices",
    "hidden_size": "hidden hidden_size hidden_dim hidden_units n_hidden units dim d_model hid nhid",
    "num_layers": "layers n_layers nlayers depth num_hidden_layers",
    "embedding_size": "emb embed embedding embedding_dim embed_dim emb_dim emb_size",
    "num_workers": "workers worker n_workers num_worker",
    "gradient_clip_val": "clip grad_clip clip_grad clip_norm max_grad_norm gradient_clip gradient_clipping",
    "accumulate_grad_batches": "accumulate grad_accum accumulation gradient_accumulation_steps accumulation_steps",
    "warmup_steps": "warmup warm_up num_warmup_steps",
    "weight_decay": "wd decay",
    "optim.name": "optimizer optimiser optim_name",
    "optim.schedule": "scheduler lr_scheduler lr_schedule sched",
    "patience": "early_stopping early_stop",
    "ema_decay": "ema",
    "decoding.beam_size": "beam beams num_beams beam_width",
    "beam_size": "beam beams num_beams beam_width",
    "trainer.precision": "fp16 bf16 amp dtype mixed_precision",
    "tracking.mode": "wandb wandb_mode",
    "runs": "output_dir save_dir out_dir log_dir logdir run_dir outdir",
    "name": "run_name exp_name experiment experiment_name",
    "seed": "random_seed manual_seed rng",
    "vocabulary.size": "vocab vocab_size vocabulary_size n_vocab",
    "max_length": "max_len maxlen max_seq_len max_seq_length seq_len",
    "sample_rate": "sr sampling_rate samplerate",
    "resume": "resume_from resume_from_checkpoint",
    "checkpoint": "ckpt ckpt_path checkpoint_path model_path",
    "dataset": "data_set dataset_name",
    "source": "pretrained init_from from_checkpoint",
    "temperature": "temp",
}
"""Other usual words for a setting: the end of its name, and the words."""
_TARGETS: dict[str, list[str]] = {}
for _target, _synonyms in _MEANT.items():
    for _word in _synonyms.split():
        _TARGETS.setdefault(_word, []).append(_target)


def unknown_name(message: str) -> str | None:
    """The dotted name in a message that something is not known; ``None`` in others."""
    if found := re.search(r"(?:unrecognized arguments:|unknown flag) -+([\w.-]+)", message, flags=re.IGNORECASE):
        return found.group(1)
    # In configuration files a key is named without dashes.
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"{found.group(1)}.{found.group(2)}"
    found = re.search(r"Option '([\w.]+)' is not accepted", message)
    return found.group(1) if found else None


def unknown_flags(words: Iterable[str], unknown: Collection[str]) -> list[str]:
    """The flags among the words that a parser did not know, each with its value, and words that belong to no flag."""
    line = list(words)
    found, values = [], set()
    for place, word in enumerate(line):
        if not word.startswith("-") or word not in unknown:
            continue
        following = line[place + 1] if place + 1 < len(line) else "--"
        if "=" in word or following.startswith("--"):
            found.append(word)
        else:
            found.append(f"{word} {following}")
            values.add(following)
    return [*found, *(word for word in unknown if not word.startswith("-") and word not in values)]


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that ``given`` was meant to be.

    It is alike as a whole, another usual word for it (``epochs``), or alike in the last part (``hiden``, ``lr``), first
    in the same group and then in all.
    """
    names = sorted(name for name in known if name and name.split(".")[-1] != "help")
    given = given.replace("-", "_")
    group, _, last = given.rpartition(".")
    outside = [name for name in names if not group and "." not in name]
    if slips := difflib.get_close_matches(given, outside, n=1, cutoff=0.85):
        return slips[0]
    if (meant := _by_meaning(given, group, last, names)) is not None:
        return meant
    below = [name for name in names if group and name.startswith(f"{group}.")]
    if exact := [name for name in below if name.rpartition(".")[2] == last]:
        return exact[0]
    if whole := difflib.get_close_matches(given, names, n=1, cutoff=0.85):
        return whole[0]
    inside = [name for name in names if group and name.rpartition(".")[0] == group]
    for chosen, cutoff in ((inside, 0.65), (outside, 0.75), (below, 0.75), (names, 0.8)):
        if (near := _by_last_part(last, chosen, cutoff=cutoff)) is not None:
            return near
    return None


def _by_meaning(given: str, group: str, last: str, names: list[str]) -> str | None:
    word = last.lower()
    for target in _TARGETS.get(word, []):
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        if given in found:
            return given
        # The nearest group: the same one, one inside it, then the first by name (an encoder's before a decoder's: the
        # larger part of what has both).
        same = [name for name in found if name.rpartition(".")[0] == group]
        below = [name for name in found if group and name.startswith(f"{group}.")]
        encoder = [name for name in below or found if ".encoder." in name]
        if chosen := same or encoder or below or found:
            return chosen[0]
    return None


def _by_last_part(last: str, names: list[str], *, cutoff: float) -> str | None:
    by_part: dict[str, str] = {}
    for name in names:
        part = name.rpartition(".")[2]
        for word in (part, part.split("_")[0]):
            by_part.setdefault(word, name)
    initials = "".join(word[:1] for word in last.split("_"))
    if "_" in last and initials in by_part:
        return by_part[initials]
    near = difflib.get_close_matches(last, sorted(by_part), n=1, cutoff=cutoff)
    return by_part[near[0]] if near else None

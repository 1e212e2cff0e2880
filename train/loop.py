"""The training loop: resumable, and the same bits whether it was interrupted or not."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from train.checkpoint import load_state, publish, save_state
from train.config import TrainConfig
from train.data import Pairs, prepare
from train.metrics import psnr_db
from train.models import create_generator

STATE = "state.pt"
LOG = "log.jsonl"


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""


def train(config: TrainConfig, *, data: Path, run: Path, resume: bool = False, device: str = "cpu") -> None:
    """Train a generator on a folder of sharp photographs.

    Writes to `run`: `state.pt` (for `resume`), `log.jsonl` (a line each `report_every` steps),
    and the published `generator.safetensors` with `config.json`, renewed at each report. Raises
    ValueError if `run` holds a state and `resume` is not given, or if it is and the settings
    differ; DivergedError if the loss is no longer a number.
    """
    if not resume and (run / STATE).exists():
        raise ValueError(f"a run is there already; add --resume, or give another --out: {run}")
    run.mkdir(parents=True, exist_ok=True)
    training, validation = prepare(data, run / "crops", config)
    torch.manual_seed(config.seed)
    generator = create_generator(config.generator, **config.options).to(device, memory_format=torch.channels_last)
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    optimizer = torch.optim.AdamW(generator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    parts: dict[str, Any] = {"generator": generator, "average": average, "optimizer": optimizer}
    start = _restore(run / STATE, config, parts) if resume else 0
    losses: list[float] = []
    began = time.monotonic()
    batches = training.batches(batch=config.batch, seed=config.seed, start=start, stop=config.steps)
    bar = tqdm(batches, initial=start, total=config.steps, unit="step", mininterval=5)
    for step, pair in enumerate(bar, start + 1):
        losses.append(_step(config, generator, optimizer, *(part.to(device) for part in pair), step=step))
        average.update_parameters(generator)
        if step % config.report_every == 0 or step == config.steps:
            line = {"step": step, "loss": sum(losses) / len(losses), **_validate(average, validation, device)}
            line |= {"learning_rate": optimizer.param_groups[0]["lr"], "seconds": round(time.monotonic() - began, 1)}
            with (run / LOG).open("a") as log:
                log.write(json.dumps(line) + "\n")
            bar.write(f"step {step}: loss {line['loss']:.5f}, validation {line['psnr_db']:.3f} dB")
            state = {name: part.state_dict() for name, part in parts.items()}
            save_state({"step": step, "config": config.to_json(), **state}, run / STATE)
            publish(average.module, config.to_json(), run)
            losses.clear()


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing (Loshchilov and Hutter 2017)."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _step(
    config: TrainConfig,
    generator: nn.Module,
    optimizer: torch.optim.Optimizer,
    blurred: Tensor,
    sharp: Tensor,
    *,
    step: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    with torch.autocast(blurred.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        restored = generator(blurred.contiguous(memory_format=torch.channels_last))
    loss = (restored.float() - sharp).abs().mean()
    if not torch.isfinite(loss):
        raise DivergedError(f"loss is {loss.item()} at step {step}; start again with a lower learning_rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_clip)
    optimizer.step()
    return loss.detach().item()


@torch.inference_mode()
def _validate(average: AveragedModel, pairs: Pairs, device: str) -> dict[str, float]:
    before, after = [], []
    average.eval()
    for start in range(0, len(pairs), 16):
        rows = torch.arange(start, min(start + 16, len(pairs))).numpy()
        blurred, sharp = (part.to(device) for part in pairs.batch(rows, 0 * rows))
        before.append(psnr_db(blurred, sharp))
        after.append(psnr_db(average(blurred), sharp))
    average.train()
    return {"blurred_psnr_db": torch.cat(before).mean().item(), "psnr_db": torch.cat(after).mean().item()}


def _restore(path: Path, config: TrainConfig, parts: dict[str, Any]) -> int:
    state = load_state(path)
    before, now = json.loads(state["config"]), json.loads(config.to_json())
    changed = ", ".join(f"{name} was {before.get(name)!r}" for name in now if now[name] != before.get(name))
    if changed:
        raise ValueError(f"settings differ from those of the run ({changed}); give the same ones: {path.parent}")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])

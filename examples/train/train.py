"""Learns a logistic regression by SGD in plain Python and logs it to W&B.

Every setting comes from `run.config`, so a launch can change it: `--set lr=0.05`. The defaults
take about five seconds; `pause_seconds` stands for the work of a larger model.
"""

import math
import random
import time

import wandb

DEFAULTS = {
    "lr": 0.1,
    "epochs": 3,
    "steps": 100,  # per epoch
    "batch_size": 32,
    "seed": 1,
    "pause_seconds": 0.012,
}
TRUE_WEIGHTS = (1.5, -2.0, 0.7, 0.0)
SAMPLES = 400

Sample = tuple[list[float], float]


def probability(weights: list[float], features: list[float]) -> float:
    logit = sum(weight * feature for weight, feature in zip(weights, features, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


def make_samples(source: random.Random) -> list[Sample]:
    """Points around the origin, labelled by a coin that TRUE_WEIGHTS bias."""
    samples = []
    for _ in range(SAMPLES):
        features = [source.gauss(0.0, 1.0) for _ in TRUE_WEIGHTS]
        label = 1.0 if source.random() < probability(list(TRUE_WEIGHTS), features) else 0.0
        samples.append((features, label))
    return samples


def evaluate(weights: list[float], samples: list[Sample]) -> tuple[float, float]:
    """The mean cross entropy and the share of right answers."""
    loss, right = 0.0, 0
    for features, label in samples:
        guess = probability(weights, features)
        loss -= math.log(guess if label else 1.0 - guess)
        right += (guess >= 0.5) == bool(label)
    return loss / len(samples), right / len(samples)


def descend(weights: list[float], batch: list[Sample], lr: float) -> list[float]:
    """One step of gradient descent on the batch's mean cross entropy."""
    gradient = [0.0] * len(weights)
    for features, label in batch:
        error = probability(weights, features) - label
        for index, feature in enumerate(features):
            gradient[index] += error * feature / len(batch)
    return [weight - lr * slope for weight, slope in zip(weights, gradient, strict=True)]


def main() -> None:
    with wandb.init(config=DEFAULTS) as run:
        config = run.config
        source = random.Random(config.seed)  # noqa: S311 (repeatable, not secret)
        samples = make_samples(source)
        weights = [0.0] * len(TRUE_WEIGHTS)
        total = config.epochs * config.steps
        loss, accuracy = evaluate(weights, samples)
        print(f"training: lr={config.lr} steps={total} loss={loss:.4f}", flush=True)
        for step in range(1, total + 1):
            weights = descend(weights, source.sample(samples, config.batch_size), config.lr)
            loss, accuracy = evaluate(weights, samples)
            epoch = (step - 1) // config.steps + 1
            run.log({"loss": loss, "accuracy": accuracy, "epoch": epoch}, step=step)
            if step % 50 == 0:
                print(f"step {step}/{total} loss={loss:.4f} accuracy={accuracy:.3f}", flush=True)
            time.sleep(config.pause_seconds)
        run.summary["final_loss"] = loss
        run.summary["steps"] = total
        print(f"done: final loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()

"""The worker: ``python -m sweeper.playground.worker`` answers requests on its standard input.

It exits with its client, when its standard input ends, and after some time without a request, to free its memory.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from argparse import ArgumentParser
from typing import TextIO

from pydantic import ValidationError

from sweeper.errors import SweeperError
from sweeper.paths import Home
from sweeper.playground.answering import shaped, stream_answer, trained_shape
from sweeper.playground.models import Models, Playable, pick_device
from sweeper.playground.protocol import IDLE_S, REQUEST, Ask, Event
from sweeper.redact import redact
from sweeper.training.micro_batch import is_out_of_memory


class Worker:
    """Answers one request after another; a second thread reads further requests and cancellations."""

    def __init__(self, home: Home, requests: TextIO, answers: TextIO) -> None:
        self._home = home
        self._requests = requests
        self._answers = answers
        self._models = Models(home)
        self._waiting: queue.Queue[Ask | None] = queue.Queue()
        self._cancelled: set[str] = set()
        self._over = threading.Event()

    def run(self, idle_s: float) -> None:
        """Answer until standard input ends, or no request comes for ``idle_s`` seconds."""
        threading.Thread(target=self._read, daemon=True).start()
        with contextlib.suppress(queue.Empty):
            while (ask := self._waiting.get(timeout=idle_s)) is not None:
                self._answer(ask)
                self._cancelled.discard(ask.id)

    def _read(self) -> None:
        for line in self._requests:
            try:
                request = REQUEST.validate_json(line)
            except ValidationError as error:
                print(redact(f"not a request: {error}"), file=sys.stderr)
                continue
            if isinstance(request, Ask):
                self._waiting.put(request)
            else:
                self._cancelled.add(request.id)
        self._over.set()
        self._waiting.put(None)

    def _is_cancelled(self, ask: Ask) -> bool:
        return ask.id in self._cancelled or self._over.is_set()

    def _answer(self, ask: Ask) -> None:
        """Let every subject answer; one that cannot is refused, and the others continue."""
        found: dict[int, Playable] = {}
        for place, subject in enumerate(ask.subjects):
            try:
                found[place] = self._models.find(subject)
            except SweeperError as error:
                self._say(ask, "refused", place, text=str(error))
        try:
            device, why = pick_device(self._home)
            self._models.keep_only(found.values(), device)
            for place, playable in found.items():
                if not self._is_cancelled(ask):
                    self._one(ask, place, playable, device, why)
        except Exception as error:
            traceback.print_exc()
            self._say(ask, "failed", text=f"{type(error).__name__}: {error}")
            return
        self._say(ask, "done")

    def _one(self, ask: Ask, place: int, playable: Playable, device: str, why: str) -> None:
        try:
            prompt, note = shaped(ask.turns, trained_shape(playable.spec.train))
            with self._models.ready(playable, device, lambda stage: self._say(ask, "loading", place, text=stage)) as (
                model,
                tokenizer,
            ):
                on = f"{device} ({why})" if why else device
                self._say(ask, "started", place, text=note, seen=prompt, device=on)
                answered = stream_answer(
                    model,
                    tokenizer,
                    prompt,
                    ask.sampling,
                    lambda piece: self._say(ask, "piece", place, text=piece),
                    lambda: self._is_cancelled(ask),
                )
            self._say(ask, "answered", place, **answered)
        except SweeperError as error:
            self._say(ask, "refused", place, text=str(error))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._models.clear()
            text = "it does not fit in memory; choose fewer versions of different base models, or a shorter prompt"
            self._say(ask, "refused", place, text=text)

    def _say(self, ask: Ask, kind: str, subject: int | None = None, **more: object) -> None:
        if isinstance(more.get("text"), str) and kind != "piece":
            more["text"] = redact(str(more["text"]))
        event = Event.model_validate({"id": ask.id, "kind": kind, "subject": subject, **more})
        self._answers.write(event.model_dump_json(exclude_defaults=True) + "\n")
        self._answers.flush()


def main() -> None:
    """Answer requests, with standard output reserved for events, whatever libraries print."""
    parser = ArgumentParser(prog="python -m sweeper.playground.worker")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="Seconds without a request after which it exits.")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the client, and that ends this
    with contextlib.suppress(BrokenPipeError):
        Worker(Home.current(), requests, answers).run(arguments.idle)
    sys.stderr.flush()
    os._exit(0)  # the reading thread may be blocked for good


if __name__ == "__main__":
    main()

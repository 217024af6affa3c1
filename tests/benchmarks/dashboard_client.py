"""A browser as the server sees it: opens a page over the websocket, and refreshes what is due, without drawing."""

from __future__ import annotations

import time
from types import TracebackType

from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

_LIMIT_S = 300.0
_LARGEST = 200 * 1024**2


def _is_fault(element: Element) -> bool:
    kind = element.WhichOneof("type")
    return kind == "exception" or (kind == "alert" and element.alert.format == Alert.ERROR)


class Client:
    """One browser tab on a dashboard at ``http://127.0.0.1:PORT``."""

    def __init__(self, port: int) -> None:
        self._socket = connect(
            f"ws://127.0.0.1:{port}/_stcore/stream",
            subprotocols=["streamlit"],
            origin=f"http://127.0.0.1:{port}",
            max_size=_LARGEST,
        )
        self._page, self._query = "", ""
        self._due: dict[str, tuple[float, float]] = {}

    def open(self, page: str, query: str = "") -> tuple[float, int]:
        """Open a page; return the seconds until it was sent whole, and its bytes.

        Raises:
            RuntimeError: If the page shows an error.
        """
        self._page, self._query = page, query
        self._due.clear()
        return self._run()

    def watch(self, seconds: float) -> list[float]:
        """Stay on the page so long, refreshing what asks for it; return how long each refresh took."""
        until, taken = time.monotonic() + seconds, []
        while (now := time.monotonic()) < until:
            due = [name for name, (at, _) in self._due.items() if at <= now]
            for name in due:
                self._due[name] = now + self._due[name][1], self._due[name][1]
                taken.append(self._run(name)[0])
            time.sleep(0.05)
        return taken

    def refresh(self) -> float:
        """Run the page once more; return the seconds until it was sent whole."""
        return self._run()[0]

    def _run(self, fragment: str = "") -> tuple[float, int]:
        message = BackMsg()
        asked = message.rerun_script
        asked.page_name, asked.query_string, asked.fragment_id = self._page, self._query, fragment
        asked.is_auto_rerun = bool(fragment)
        begun, received = time.perf_counter(), 0
        self._socket.send(message.SerializeToString())
        while True:
            frame = self._socket.recv(timeout=_LIMIT_S)
            received += len(frame)
            answer = ForwardMsg.FromString(frame)
            kind = answer.WhichOneof("type")
            if kind == "auto_rerun":
                every = answer.auto_rerun.interval
                self._due[answer.auto_rerun.fragment_id] = time.monotonic() + every, every
            if kind == "delta" and _is_fault(answer.delta.new_element):
                raise RuntimeError(f"{self._page}?{self._query}: {answer.delta.new_element}"[:500])
            if kind == "script_finished" and answer.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return time.perf_counter() - begun, received

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

"""Frames of cameras and streams: the newest one counts, all are counted, and what is lost is told."""

import http.server
import os
import threading
import time
import weakref

import numpy as np
import pytest

from segnet.deployment.sources import OPTIONS, Camera, Newest, is_live, without_password
from segnet.errors import UserError
from streams import Http, Rtsp, camera

GREY = [np.full((48, 64, 3), value, np.uint8) for value in range(10, 250, 20)]


def test_a_slow_reader_gets_the_newest_frame_in_order_and_every_other_one_is_counted():
    alive, most, given = [], 0, 300

    def source():
        for i in range(given):
            frame = np.full((4, 4, 3), i % 256, np.uint8)
            alive.append(weakref.ref(frame))
            yield frame
            time.sleep(0.001)

    newest = Newest(source(), threading.Event())
    taken = []
    for frame in newest:
        before = newest.read
        time.sleep(0.02)
        taken.append((frame.number, int(frame.image[0, 0, 0])))
        assert frame.number >= before - 1  # nothing newer was waiting when it was taken
        most = max(most, sum(reference() is not None for reference in list(alive)))
    numbers = [number for number, _ in taken]
    assert numbers == sorted(set(numbers))
    assert all(value == (number - 1) % 256 for number, value in taken)
    assert newest.read == given == len(taken) + newest.dropped
    assert newest.dropped > given / 2
    assert numbers[-1] == given  # the last one waits
    assert most <= 4


def test_an_error_of_the_source_comes_after_its_last_frame():
    def source():
        yield GREY[0]
        raise UserError("gone")

    taken = []
    with pytest.raises(UserError, match="gone"):
        taken.extend(Newest(source(), threading.Event()))
    assert [frame.number for frame in taken] == [1]


@pytest.mark.parametrize("kind", [Rtsp, Http])
def test_a_stream_gives_its_frames_and_its_end_is_told(kind):
    with camera(kind, GREY, pause=0.01) as (address, _):
        frames = []
        with pytest.raises(UserError, match=r"gives no more frames after 12; is it still connected\?"):
            frames.extend(Camera(address).frames(threading.Event()))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 12
    for frame, sent in zip(frames, GREY, strict=True):
        assert np.abs(frame.astype(int) - sent).max() <= 3  # JPEG


def test_a_lost_connection_is_made_again_a_bounded_number_of_times(capfd, monkeypatch):
    monkeypatch.setattr("segnet.deployment.sources.LONGEST", 0.05)
    with camera(Rtsp, GREY[:3], answered=2) as (address, server):
        frames = []
        with pytest.raises(UserError, match="no more frames after 6, and 4 tries to connect again failed"):
            frames.extend(Camera(address, tries=4).frames(threading.Event()))
        assert server.connections >= 5
    assert len(frames) == 6
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 4
    assert "connection lost after 3 frames; try 1 of 4" in told[0]
    assert "connection lost after 6 frames; try 2 of 4" in told[1]


def test_a_playlist_that_an_address_serves_opens_nothing():
    asked = []

    class Playlist(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.apple.mpegurl")
            self.end_headers()
            port = self.server.server_address[1]
            self.wfile.write(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/other\n".encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Playlist) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(UserError, match="no stream there"):
            Camera(f"http://127.0.0.1:{server.server_address[1]}/a.m3u8")
        server.shutdown()
    assert asked == ["/a.m3u8"]


def test_a_file_in_place_of_a_camera_is_a_video_and_no_list_of_addresses(tmp_path):
    file = tmp_path / "film.mp4"
    file.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/other.ts\n")
    with pytest.raises(UserError, match="cannot be read as a video"):
        Camera(f"camera:{file}")


def test_options_of_the_users_come_last_and_stay(monkeypatch):
    monkeypatch.setenv(OPTIONS, "rtsp_transport;tcp")
    with pytest.raises(UserError, match="no stream there"):
        Camera("rtsp://127.0.0.1:9/")
    assert os.environ[OPTIONS] == "rtsp_transport;tcp"


def test_what_is_live_and_how_it_is_named():
    assert [is_live(word) for word in ("camera:0", "rtsp://a/b", "RTSPS://a", "http://a", "https://a")] == [True] * 5
    assert [is_live(word) for word in ("/a/camera:0", "a.mp4", "file:///a", "concat:a|b")] == [False] * 4
    for given, shown in (
        ("rtsp://user:pass:w@host/a@b", "rtsp://***@host/a@b"),
        ("rtsp://user:p@ss@host:554/a", "rtsp://***@host:554/a"),
        ("rtsp://user:a/b@host/c", "rtsp://***@host/c"),
        ("rtsp://user@host/a", "rtsp://***@host/a"),
        ("rtsp://host:554/a", "rtsp://host:554/a"),
        ("http://host/video?user=a&pwd=secret&channel=1", "http://host/video?user=a&pwd=***&channel=1"),
        ("rtsp://host/user=a_password=secret_channel=1", "rtsp://host/user=a_password=***"),
    ):
        assert without_password(given) == shown
    with pytest.raises(UserError) as found:
        Camera("rtsp://user:secret@127.0.0.1:9/")
    assert "secret" not in str(found.value)

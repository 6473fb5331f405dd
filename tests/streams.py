"""Cameras on this machine: MJPEG by HTTP, and JPEG in RTP (RFC 2435) by RTSP (RFC 2326), over one TCP connection."""

import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import cv2
import numpy as np


def jpeg(image) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


class _Camera(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.connections += 1
        if self.server.connections > self.server.answered:
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            self.serve()

    def serve(self):
        raise NotImplementedError

    def frames(self):
        for image in self.server.images:
            yield jpeg(image)
            time.sleep(self.server.pause)


class Http(_Camera):
    def serve(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        for frame in self.frames():
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n".encode()
            self.wfile.write(head + frame + b"\r\n")


class Rtsp(_Camera):
    def serve(self):
        port = self.server.server_address[1]
        sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:video\r\n"
        while True:
            lines = []
            while line := self.rfile.readline().decode().strip():
                lines.append(line)
            if not lines:
                return
            method = lines[0].split()[0]
            number = next(line for line in lines if line.lower().startswith("cseq"))
            more, body = {
                "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
                "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Base: rtsp://127.0.0.1:{port}/\r\n", sdp),
                "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
            }.get(method, ("Session: 1\r\n", ""))
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            self.wfile.write(f"RTSP/1.0 200 OK\r\n{number}\r\n{more}{length}\r\n{body}".encode())
            if method == "PLAY":
                break
        sequence = 0
        for i, frame in enumerate(self.frames()):
            for packet in packets(frame, sequence, round(90_000 * i * max(self.server.pause, 0.04))):
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
                sequence += 1


def packets(frame: bytes, sequence: int, stamp: int) -> Iterator[bytes]:
    """RTP packets of a baseline JPEG with the standard Huffman tables, as OpenCV writes it."""
    tables, at = b"", 2
    while True:
        marker, length = frame[at + 1], struct.unpack(">H", frame[at + 2 : at + 4])[0]
        segment = frame[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            while segment:
                tables, segment = tables + segment[1:65], segment[65:]
        elif marker == 0xC0:
            height, width = struct.unpack(">HH", segment[1:5])
            kind = 1 if segment[7] == 0x22 else 0
        elif marker == 0xDA:
            break
    scan = frame[at:-2]
    for start in range(0, len(scan), 1200):
        part = scan[start : start + 1200]
        last = start + 1200 >= len(scan)
        head = struct.pack(">BBHII", 0x80, 26 | last << 7, (sequence & 0xFFFF), stamp, 1)
        head += struct.pack(">I", start) + bytes([kind, 255, width // 8, height // 8])
        if start == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        sequence += 1
        yield head + part


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def camera(kind, images: Sequence, pause: float = 0.0, answered: int = 1):
    """The address of a server that sends these images to the first ``answered`` connections, and closes the others."""
    with _Server(("127.0.0.1", 0), kind) as server:
        server.images, server.pause, server.answered, server.connections = images, pause, answered, 0
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"{kind.__name__.lower()}://127.0.0.1:{server.server_address[1]}/", server
        finally:
            server.shutdown()

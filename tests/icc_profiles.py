"""ICC profiles by hand (ICC.1:2001-04), so that tests know what they say."""

import struct

import numpy as np

# sRGB's primaries in XYZ, adapted to D50 (IEC 61966-2-1, Bradford); Display P3's.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])
P3 = np.array([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
D50 = np.array([0.9642, 1.0, 0.8249])


def rgb_profile(primaries, gamma):
    """XYZ = primaries @ rgb ** gamma."""
    colours = {f"{name}XYZ".encode(): _xyz(column) for name, column in zip("rgb", primaries.T, strict=True)}
    curves = {f"{name}TRC".encode(): _curve(gamma) for name in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**colours, **curves})


def grey_profile(gamma):
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(labs):
    """labs: (2, 2, 2, 2, 3), the Lab colour with none or all of cyan, magenta, yellow and black."""
    steps = bytes(range(256))
    corners = np.asarray(labs, float).reshape(-1, 3) * [2.55, 1, 1] + [0, 128, 128]
    grid = np.rint(corners).astype(np.uint8).tobytes()
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + steps * 4 + grid + steps * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def lab_to_xyz(lab):
    """CIE 15, relative to D50."""
    lightness, a, b = np.moveaxis(np.asarray(lab, float), -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], -1)
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50


def xyz_to_srgb(xyz):
    """0..255, not rounded."""
    linear = np.clip(np.asarray(xyz) @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def _profile(kind, space, connection, tags):
    tags = {b"desc": _text(b"desc"), b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(D50), **tags}
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    header = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x02400000, kind, space, connection)
    header += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
    header += bytes(68 - len(header)) + struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _text(kind):
    return kind + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)

"""Ways to write a path that leads out of a folder, as a client can put them into a request line."""

from __future__ import annotations

import os
from pathlib import Path

SECRET = "the secret of another folder"

#: Request targets below /assets. The folder has a sibling secret.txt; links and hidden files are in it.
TARGETS = (
    b"/assets/../secret.txt",
    b"/assets/../../../../../../../../etc/passwd",
    b"/assets/sub/../../secret.txt",
    b"/assets/./../secret.txt",
    b"/assets/..",
    b"/assets/../",
    b"/assets/.",
    b"/assets/%2e%2e/secret.txt",
    b"/assets/%2E%2E%2Fsecret.txt",
    b"/assets/..%2fsecret.txt",
    b"/assets%2f..%2fsecret.txt",
    b"/assets/.%2e/secret.txt",
    b"/assets/%252e%252e/secret.txt",
    b"/assets/%252e%252e%252fsecret.txt",
    b"/assets/%25252e%25252e/secret.txt",
    b"/assets/..\\secret.txt",
    b"/assets/..%5csecret.txt",
    b"/assets/sub\\..\\..\\secret.txt",
    b"/assets/%5c..%5c..%5csecret.txt",
    b"/assets//etc/passwd",
    b"/assets///etc/passwd",
    b"/assets/%2fetc%2fpasswd",
    b"/assets//../secret.txt",
    b"//assets/../secret.txt",
    b"/assets/sub//../../secret.txt",
    b"/assets/....//secret.txt",
    b"/assets/..;/secret.txt",
    b"/assets/..;a=b/secret.txt",
    b"/assets;/../secret.txt",
    b"/assets/..%00/secret.txt",
    b"/assets/app.js%00.html",
    b"/assets/%00",
    b"/assets/../secret.txt%00.js",
    b"/assets/%c0%ae%c0%ae/secret.txt",
    b"/assets/%c0%ae%c0%ae%c0%afsecret.txt",
    b"/assets/%e0%80%ae%e0%80%ae/secret.txt",
    b"/assets/\xc0\xae\xc0\xae/secret.txt",
    b"/assets/%ef%bc%8e%ef%bc%8e/secret.txt",
    b"/assets/%e2%80%a5/secret.txt",
    b"/assets/..%e2%88%95secret.txt",
    b"/assets/%u002e%u002e/secret.txt",
    b"/assets/.. /secret.txt".replace(b" ", b"%20"),
    b"/assets/..%0a/secret.txt",
    b"/assets/..%0d%0a/secret.txt",
    b"/assets/.../secret.txt",
    b"/assets/../public-2/secret.txt",
    b"/assets-2/secret.txt",
    b"/assets/~/secret.txt",
    b"/assets/~root/.profile",
    b"/assets/C:/secret.txt",
    b"/assets/C:%5csecret.txt",
    b"/assets/%5c%5chost%5cshare%5csecret.txt",
    b"/assets/file:///etc/passwd",
    b"/assets/CON",
    b"/assets/nul.txt",
    b"/assets/app.js::$DATA",
    b"/assets/app.js.",
    b"/assets/app.js%20",
    b"/assets/app.js/",
    b"/assets/app.js/..",
    b"/assets/app.js/../app.js",
    b"/assets/.env",
    b"/assets/%2eenv",
    b"/assets/.git/config",
    b"/assets/sub/.hidden",
    b"/assets/sub/.well-known/x",
    b"/assets/out",
    b"/assets/parent/secret.txt",
    b"/assets/sibling/secret.txt",
    b"/assets/loop",
    b"/assets/loop/x",
    b"/assets/pipe",
    b"/assets/sub",
    b"/assets/sub/",
    b"/assets/" + b"a" * 300,
    b"/assets/" + b"../" * 500 + b"etc/passwd",
    b"http://localhost/assets/../secret.txt",
)


def make_folder(place: Path) -> Path:
    """A folder with what a careless deployment leaves in it, beside what nobody may read."""
    folder = place / "public"
    for directory in (folder / "sub" / ".well-known", folder / ".git", place / "public-2"):
        directory.mkdir(parents=True)
    (folder / "app.js").write_text("let a = 1;\n")
    hidden = (
        ".env",
        ".git/config",
        "sub/.hidden",
        "sub/.well-known/x",
        "../secret.txt",
        "../public-2/secret.txt",
    )
    for name in hidden:
        (folder / name).write_text(SECRET)
    (folder / "out").symlink_to("../secret.txt")
    (folder / "parent").symlink_to("..")
    (folder / "sibling").symlink_to("../public-2")
    (folder / "loop").symlink_to("loop")
    (folder / "inside").symlink_to("app.js")
    os.mkfifo(folder / "pipe")
    return folder

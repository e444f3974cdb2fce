"""Makes `docs/example.html` of the report of a finished demo: one page that leads nowhere else.

python docs/example.py data
"""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("example.html")


def without_links(page: str) -> str:
    """The page without its links to files beside it, which are not part of the documentation."""
    pages = re.sub(r'<a [^>]*href="(?:cases|figures|tables)/[^"]*"[^>]*>(.*?)</a>', r"\1", page, flags=re.DOTALL)
    return re.sub(r'<a [^>]*href="methods\.md"[^>]*>(.*?)</a>', r"\1", pages, flags=re.DOTALL)


def main(data_dir: Path) -> None:
    """Copies the report of a data folder, whose place on this machine concerns nobody."""
    page = (data_dir / "experiment_report" / "report.html").read_text("utf-8")
    PAGE.write_text(without_links(page).replace(str(data_dir.resolve()), "data"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

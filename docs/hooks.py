"""For mkdocs: what stands in the README is shown on the site, too."""

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PLACE = "<!-- README: "


def on_page_markdown(markdown: str, **_: object) -> str:
    """``<!-- README: Measured -->`` becomes that section, its links as they are true below docs/."""
    before, found, rest = markdown.partition(PLACE)
    if not found:
        return markdown
    title, _, after = rest.partition(" -->")
    section = README.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return before + section.replace("](docs/", "](").replace('="docs/', '="') + after

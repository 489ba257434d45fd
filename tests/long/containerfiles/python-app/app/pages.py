from pathlib import Path

PAGE = Path(__file__).parent / "templates" / "page.html"


def render(name):
    return PAGE.read_text().replace("{name}", name)

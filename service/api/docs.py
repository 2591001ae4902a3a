"""The docs page, whole without the internet: FastAPI's own would load its scripts from somebody else's server.

All that it loads comes from the wheel `fastapi-offline`, by addresses relative to the page.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

ASSETS: Final = Path(str(files("fastapi_offline"))) / "static"
MAX_CACHE_S: Final = 86_400

router = APIRouter(prefix="/docs", include_in_schema=False)


@router.get("")
async def read_docs() -> HTMLResponse:
    """The page. It asks no validator elsewhere what to think of the document."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Tidegate",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )


@router.get("/{name}")
async def read_asset(name: Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]) -> FileResponse:
    """A file that the page loads."""
    return FileResponse(ASSETS / name, headers={"cache-control": f"public, max-age={MAX_CACHE_S}"})

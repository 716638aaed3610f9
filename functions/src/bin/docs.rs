//! `GET /docs`: a page to read the contract and try it, and `GET /openapi.json`, the contract itself.
use shared::{Error, Request, Response, serve_files};
use std::process::ExitCode;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE_SHEET: &str = "text/css; charset=utf-8";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_files(docs).await
}

fn docs(request: &Request) -> Result<Response, Error> {
    Ok(match request.path() {
        "/openapi.json" => {
            Response::file("application/json", include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json")))
        }
        "/docs" => Response::file(HTML, include_bytes!("../docs/index.html")),
        "/docs/style.css" => Response::file(STYLE_SHEET, include_bytes!("../docs/style.css")),
        "/docs/init.js" => Response::file(SCRIPT, include_bytes!("../docs/init.js")),
        "/docs/swagger-ui-bundle.js" => {
            Response::gzip_file(SCRIPT, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")))
        }
        "/docs/swagger-ui.css" => {
            Response::gzip_file(STYLE_SHEET, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz")))
        }
        _ => return Err(Error::NoSuchPath),
    })
}

//! nginx over a folder of files.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use crate::stage::wait_until;

/// What the files hold that nobody is to read.
pub(crate) const SECRET: &str = "nobody is to read this";

/// A running nginx; it ends with this.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nginx {
    pub(crate) fn is_installed() -> bool {
        let version = Command::new("nginx")
            .arg("-v")
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    }

    /// Serves `/public/page.html`, and secrets in `/.git/config` and `/etc/passwd`.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("root");
        for (file, text) in [
            ("public/page.html", "fine"),
            (".git/config", SECRET),
            ("etc/passwd", SECRET),
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(&root))?;
            std::fs::write(path, text)?;
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(folder.path(), &root, address))?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self {
            child,
            address,
            _folder: folder,
        };
        wait_until("nginx", || TcpStream::connect(address).is_ok())?;
        Ok(nginx)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, root: &Path, address: SocketAddr) -> String {
    let (folder, root) = (folder.display(), root.display());
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {address}; root {root}; }}
}}
"
    )
}

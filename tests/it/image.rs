//! The image: the last stage of the Dockerfile is built, and the program is run in it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use frappe_loadtest::cluster::Cluster;

/// Container and image, which are removed when the test ends, also if it fails.
struct Built {
    container: String,
    image: String,
    folder: PathBuf,
}

impl Drop for Built {
    fn drop(&mut self) {
        for arguments in [["rm", self.container.as_str()], ["rmi", self.image.as_str()]] {
            let _ = Command::new("buildah").args(arguments).output();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs buildah; it must succeed.
fn buildah(arguments: &[&str]) -> String {
    let output = Command::new("buildah").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "buildah {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// The program for the image, which `make static` builds; None if it cannot be built.
fn static_program() -> Option<PathBuf> {
    let built = std::env::var_os("FRAPPE_STATIC_PROGRAM").map(PathBuf::from).filter(|it| it.exists());
    let has_buildah = Command::new("buildah").arg("--version").output().is_ok_and(|it| it.status.success());
    match built {
        Some(program) if has_buildah => Some(program),
        _ => {
            println!(
                "SKIPPED: the image was not built: that needs buildah, musl-gcc and Rust's musl target (make static)"
            );
            None
        }
    }
}

/// Builds the Dockerfile's last stage with an existing program.
fn build(program: &Path) -> Built {
    let dockerfile = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    let (_, last) = dockerfile.split_once("\nFROM scratch\n").expect("the last stage is FROM scratch");
    let folder = std::env::temp_dir().join(format!("frappe-operator-image-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(program, folder.join("frappe-operator")).unwrap();
    let authorities = "etc/ssl/certs/ca-certificates.crt";
    std::fs::create_dir_all(folder.join(authorities).parent().unwrap()).unwrap();
    std::fs::write(folder.join(authorities), std::fs::read(Path::new("/").join(authorities)).unwrap_or_default())
        .unwrap();
    for name in ["LICENSE", "NOTICE"] {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), folder.join(name)).unwrap();
    }
    let file = folder.join("Dockerfile");
    std::fs::write(&file, format!("FROM scratch\n{}", last.replace("--from=build ", ""))).unwrap();
    let image = format!("localhost/frappe-operator-test:{}", std::process::id());
    let context = folder.to_str().unwrap();
    buildah(&["build", "--isolation", "chroot", "--tag", &image, "--file", file.to_str().unwrap(), context]);
    let container = buildah(&["from", "--pull-never", &image]);
    Built { container, image, folder }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_runs_in_an_empty_image() {
    let Some(program) = static_program() else { return };
    let built = build(&program);
    let config = ["User", "Entrypoint", "Cmd"].map(|it| {
        buildah(&["inspect", "--type", "image", "--format", &format!("{{{{.OCIv1.Config.{it}}}}}"), &built.image])
    });
    assert_eq!(config, ["65532:65532", "[/frappe-operator]", "[run]"]);
    let root = buildah(&["mount", &built.container]);
    let mut files: Vec<String> =
        std::fs::read_dir(&root).unwrap().map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    files.sort();
    assert_eq!(files, ["etc", "frappe-operator", "licenses"], "nothing else is in the image");
    let notice = std::fs::read_to_string(Path::new(&root).join("licenses/NOTICE")).unwrap();
    assert!(notice.contains("\nkube-client ") && notice.contains("musl"), "it lists the image's contents");
    buildah(&["umount", &built.container]);

    let run = ["run", "--isolation", "chroot"];
    let version = buildah(&[&run[..], &[&built.container, "--", "/frappe-operator", "--version"]].concat());
    assert_eq!(version, format!("frappe-operator {}", env!("CARGO_PKG_VERSION")));

    // Without the system's certificates, and as an unprivileged user: the kubeconfig is all that it needs for an API server.
    let cluster = Cluster::start("image", 1).unwrap();
    let flat = cluster.kubectl(&["config", "view", "--raw", "--flatten"], "").unwrap().out;
    let kubeconfig = built.folder.join("kubeconfig");
    std::fs::write(&kubeconfig, flat).unwrap();
    let mount = format!("{}:/kubeconfig:ro", kubeconfig.display());
    let status =
        ["--volume", &mount, "--env", "KUBECONFIG=/kubeconfig", &built.container, "--", "/frappe-operator", "status"];
    let table = buildah(&[&run[..], &status[..]].concat());
    assert_eq!(table, "0 benches\n0 sites");
    let size = std::fs::metadata(&program).unwrap().len();
    println!("the image is one file of {} MiB; it runs as 65532 and reaches an API server", size >> 20);
}

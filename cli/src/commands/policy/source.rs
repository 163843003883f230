//! `policy new`, `policy build`: a policy's source, and the component that it becomes. On this machine alone.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::args::Globals;
use crate::error::CliError;
use crate::output::Output;

/// Longest name of a policy.
const NAME_MAX: usize = 63;
/// Where the SDK is, from the folder of this repository.
const SDK: &str = "policies/sdk";

/// Write a new policy.
#[derive(Debug, Args)]
pub struct New {
    /// Its name; the folder that is made has it too.
    #[arg(value_parser = name)]
    name: String,
    /// The folder to make it in.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The SDK's folder, policies/sdk of EventFlow's source; found by itself in a folder of that source.
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

/// Compile a policy.
#[derive(Debug, Args)]
pub struct Build {
    /// The policy's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The component; without it, NAME.wasm in the folder's target.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts || text.ends_with('-') || text.len() > NAME_MAX || !text.bytes().all(is_word) {
        return Err(format!(
            "must be lower-case letters, digits and '-', start with a letter, and have at most {NAME_MAX}"
        ));
    }
    Ok(text.to_owned())
}

impl New {
    /// Writes the files.
    ///
    /// # Errors
    /// The folder is there already, or cannot be written; the SDK is not found.
    pub fn run(self, globals: &Globals) -> Result<(), CliError> {
        let folder = self.folder.join(&self.name);
        if folder.exists() {
            return Err(CliError::usage(format!("{} is there already", folder.display())));
        }
        let sdk = self.sdk()?;
        write(&folder.join("Cargo.toml"), &self.fill(include_str!("../../../template/manifest.toml"), &sdk))?;
        write(&folder.join("src/lib.rs"), &self.fill(include_str!("../../../template/lib.rs.txt"), &sdk))?;
        write(&folder.join("fixtures.json"), include_str!("../../../template/fixtures.json"))?;
        let folder = folder.display();
        Output::new(globals.no_colour()).print(&format!(
            "{folder} is a policy that compiles. Next:\n  cargo test --manifest-path {folder}/Cargo.toml\n  \
             eventflow policy build {folder}\n"
        ))
    }

    fn fill(&self, template: &str, sdk: &Path) -> String {
        // Quoted as a path in TOML is.
        let sdk = format!("{:?}", sdk.display().to_string());
        let summary = "Caps the replicas of one function.";
        let filled = template.replace("{name}", &self.name).replace("{type}", &camel(&self.name));
        filled.replace("{summary}", summary).replace("{sdk}", &sdk)
    }

    fn sdk(&self) -> Result<PathBuf, CliError> {
        let unreadable = |source| CliError::File { path: self.folder.clone(), source };
        if let Some(sdk) = &self.sdk {
            return std::path::absolute(sdk).map_err(unreadable);
        }
        let folder = std::path::absolute(&self.folder).map_err(unreadable)?;
        let found = folder.ancestors().map(|above| above.join(SDK)).find(|sdk| sdk.join("Cargo.toml").is_file());
        found.ok_or_else(|| CliError::usage("say where the SDK is: --sdk FOLDER, policies/sdk of EventFlow's source"))
    }
}

/// `no-latest` to `NoLatest`.
fn camel(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-').filter(|part| !part.is_empty()).map(word).collect()
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map_err(|source| CliError::Write { path: path.to_owned(), source })
}

impl Build {
    /// Compiles it, and puts its test cases in.
    ///
    /// # Errors
    /// There is no compiler for wasm32, or the policy does not compile.
    pub async fn run(self, globals: &Globals) -> Result<(), CliError> {
        let built = tokio::task::spawn_blocking(move || self.build()).await;
        let (path, size) = built.map_err(|error| CliError::Start(std::io::Error::other(error)))??;
        Output::new(globals.no_colour()).print(&format!("{} ({} KiB)\n", path.display(), size.div_ceil(1024)))
    }

    fn build(&self) -> Result<(PathBuf, usize), CliError> {
        let folder =
            std::path::absolute(&self.folder).map_err(|source| CliError::File { path: self.folder.clone(), source })?;
        let package = package(&folder)?;
        let target = folder.join("target");
        let modules = policy_build::compile(&folder, &target, std::slice::from_ref(&package));
        let module = modules.map_err(|error| CliError::usage(format!("{package} does not compile: {error}")))?;
        let module = module.first().cloned().unwrap_or_default();
        let bytes = fs::read(&module).map_err(|source| CliError::File { path: module.clone(), source })?;
        let cases = folder.join("fixtures.json");
        let cases = match fs::read_to_string(&cases) {
            Ok(cases) => Some(cases),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(CliError::File { path: cases, source }),
        };
        let component = policy_build::encode(&bytes, cases.as_deref());
        let component = component.map_err(|error| CliError::usage(format!("{package} is {error}")))?;
        let out = self.out.clone().unwrap_or_else(|| target.join(format!("{package}.wasm")));
        fs::write(&out, &component).map_err(|source| CliError::Write { path: out.clone(), source })?;
        Ok((out, component.len()))
    }
}

/// The name of the package in the folder.
fn package(folder: &Path) -> Result<String, CliError> {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|source| CliError::File { path: manifest.clone(), source })?;
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != "[package]").skip(1);
    let name = lines.by_ref().take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "name").then(|| value.trim().trim_matches('"').to_owned())
    });
    name.ok_or_else(|| CliError::usage(format!("{} names no package", manifest.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages() {
        assert_eq!(camel("no-latest2"), "NoLatest2");
        for bad in ["", "A", "1a", "a_b", "a-", "-a", "a/b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(name("no-latest").is_ok());
    }
}

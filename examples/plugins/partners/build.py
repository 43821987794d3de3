#!/usr/bin/env python3
"""Builds the policy "partners" in one or all of its five languages, with pinned tools that it installs itself.

It needs Python 3.9, and of each language what README.md says. A tool is installed once into the folder of the tools, and
again when its pin changes; nothing else on the machine is changed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONTRACT = HERE.parents[2] / "wit" / "plugin.wit"
WORLD = "partners"

# The pins that no lock file beside the sources holds: requirements.txt, package-lock.json and Cargo.lock have the others.
WIT_BINDGEN = "0.63.0"
GO_CRATES = {
    # The package that the Go bindings import, of the same version as wit-bindgen.
    "wit-bindgen-go": WIT_BINDGEN,
    # Turns the WASI preview 1 of Go's compiler into the preview 2 of components. Go's collector needs one that can pause
    # the clock, which older adapters cannot.
    "wasi-preview1-component-adapter-provider": "48.0.8",
}


class Build:
    """Where the tools are, and where things are built."""

    def __init__(self, tools: Path, out: Path):
        self.tools = tools
        self.out = out

    # Tools

    def install(self, name: str, pin: str, install) -> Path:
        """Calls `install` with an empty folder, unless the folder was filled for this pin before."""
        folder = self.tools / name
        stamp = folder / "pin"
        if not (stamp.is_file() and stamp.read_text() == pin):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            install(folder)
            stamp.write_text(pin)
        return folder

    def python_packages(self, language: str) -> Path:
        """A virtual environment with the language's requirements.txt; its programs."""
        requirements = HERE / language / "requirements.txt"

        def install(folder: Path) -> None:
            run(sys.executable, "-m", "venv", folder)
            pip = folder / "bin" / "pip"
            run(pip, "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", requirements)

        return self.install(f"python-{language}", requirements.read_text(), install) / "bin"

    def npm_packages(self) -> Path:
        lock = HERE / "javascript" / "package-lock.json"

        def install(folder: Path) -> None:
            shutil.copy(HERE / "javascript" / "package.json", folder)
            shutil.copy(lock, folder)
            run("npm", "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)

        return self.install("npm", lock.read_text(), install)

    def wit_bindgen(self) -> Path:
        """The program wit-bindgen, compiled from crates.io with its own lock file: some minutes, once."""
        pin = f"wit-bindgen-cli {WIT_BINDGEN}, c and go"

        def install(folder: Path) -> None:
            run(
                "cargo", "install", "--quiet", "--locked", "--root", folder, "--target-dir", folder / "target",
                "--no-default-features", "--features", "c,go", "--version", WIT_BINDGEN, "wit-bindgen-cli",
            )
            shutil.rmtree(folder / "target")

        return self.install("wit-bindgen", pin, install) / "bin" / "wit-bindgen"

    def go_crates(self) -> dict[str, Path]:
        """The folders into which cargo unpacks the crates of GO_CRATES, which hold more than Rust."""
        lines = [f'{name} = "={version}"' for name, version in GO_CRATES.items()]
        manifest = "\n".join(
            ['[package]\nname = "go-crates"\nedition = "2021"\n[workspace]\n[lib]\npath = "lib.rs"\n[dependencies]', *lines]
        )

        def install(folder: Path) -> None:
            (folder / "Cargo.toml").write_text(manifest)
            (folder / "lib.rs").touch()

        folder = self.install("go-crates", manifest, install)
        output = subprocess.run(
            ["cargo", "metadata", "--quiet", "--format-version", "1"],
            cwd=folder, check=True, stdout=subprocess.PIPE,
        )
        packages = json.loads(output.stdout)["packages"]
        return {package["name"]: Path(package["manifest_path"]).parent for package in packages}

    # Languages: each gives its component.

    def rust(self) -> Path:
        target = self.out / "rust"
        run(
            "cargo", "build", "--quiet", "--release", "--locked", "--target", "wasm32-wasip2", "--target-dir", target,
            cwd=HERE / "rust",
        )
        return target / "wasm32-wasip2" / "release" / "partners.wasm"

    def python(self) -> Path:
        programs = self.python_packages("python")
        component = self.fresh("python") / "partners.wasm"
        # --stub-wasi: the component imports nothing of WASI.
        run(
            programs / "componentize-py", "--quiet", "--wit-path", "wit", "--world", WORLD,
            "componentize", "--stub-wasi", "--python-path", ".", "partners", "--output", component,
            cwd=HERE / "python",
        )
        return component

    def javascript(self) -> Path:
        packages = self.npm_packages()
        component = self.fresh("javascript") / "partners.wasm"
        # node looks for packages beside the script that imports them.
        shutil.copy(HERE / "javascript" / "build.js", packages)
        source = HERE / "javascript"
        run("node", packages / "build.js", source / "partners.js", source / "wit", WORLD, component)
        return component

    def go(self) -> Path:
        programs = self.python_packages("go")
        crates = self.go_crates()
        module = self.fresh("go") / "module"
        run(self.wit_bindgen(), "go", HERE / "go" / "wit", "--world", WORLD, "--out-dir", module, quiet=True)
        # Our go.mod replaces the one that is generated.
        skipped = shutil.ignore_patterns("wit", "requirements.txt")
        shutil.copytree(HERE / "go", module, dirs_exist_ok=True, ignore=skipped)
        shutil.copytree(crates["wit-bindgen-go"] / "src" / "pkg", module / "pkg")
        core, typed, component = (module.parent / name for name in ("core.wasm", "typed.wasm", "partners.wasm"))
        environment = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOCACHE": self.out / "go-cache"}
        run(
            # checklinkname: the bindings' package takes memory from Go's runtime by a name that is not public.
            programs / "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w -checklinkname=0", "-o", core, ".",
            cwd=module, environment={**environment, "GOOS": "wasip1", "GOARCH": "wasm"},
        )
        wasm_tools = programs / "wasm-tools"
        run(wasm_tools, "component", "embed", "--world", WORLD, HERE / "go" / "wit", core, "--output", typed)
        adapters = crates["wasi-preview1-component-adapter-provider"] / "artefacts"
        adapter = adapters / "wasi_snapshot_preview1.reactor.wasm"
        run(wasm_tools, "component", "new", typed, "--adapt", adapter, "--output", component)
        return component

    def c(self) -> Path:
        programs = self.python_packages("c")
        folder = self.fresh("c")
        bindings = folder / "bindings"
        run(self.wit_bindgen(), "c", HERE / "c" / "wit", "--world", WORLD, "--out-dir", bindings, quiet=True)
        core, component = folder / "core.wasm", folder / "partners.wasm"
        sources = [HERE / "c" / name for name in ("partners.c", "settings.c", "json.c")]
        # zig's own stack of 16 MiB would count towards the memory of each instance.
        self.zig(
            "--target=wasm32-wasi", "-mexec-model=reactor", "-Os", "-s", "-Wl,-z,stack-size=65536", "-I", bindings,
            *sources, bindings / "partners.c", bindings / "partners_component_type.o", "-o", core,
        )
        run(programs / "wasm-tools", "component", "new", core, "--output", component)
        return component

    def zig(self, *arguments) -> None:
        python = self.python_packages("c") / "python"
        caches = {"ZIG_GLOBAL_CACHE_DIR": self.tools / "zig-cache", "ZIG_LOCAL_CACHE_DIR": self.out / "zig-cache"}
        flags = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
        run(python, "-m", "ziglang", "cc", *flags, *arguments, environment=caches)

    def fresh(self, language: str) -> Path:
        """An empty folder to build in."""
        folder = self.out / language
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    # Tests of the settings, on this machine's architecture

    def test_rust(self) -> None:
        run("cargo", "test", "--quiet", "--locked", "--target-dir", self.out / "rust", cwd=HERE / "rust")

    def test_python(self) -> None:
        run(sys.executable, "-m", "unittest", "--quiet", cwd=HERE / "python")

    def test_javascript(self) -> None:
        run("node", "--test", cwd=HERE / "javascript", quiet=True)

    def test_go(self) -> None:
        environment = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOCACHE": self.out / "go-cache"}
        files = sorted((HERE / "go" / "settings").glob("*.go"))
        run(self.python_packages("go") / "go", "test", *files, environment=environment)

    def test_c(self) -> None:
        program = self.fresh("c-test") / "settings_test"
        sources = [HERE / "c" / name for name in ("settings_test.c", "settings.c", "json.c")]
        self.zig("-g", "-fsanitize=undefined", *sources, "-o", program)
        run(program)


LANGUAGES = ("rust", "python", "javascript", "go", "c")


def run(*command, cwd=None, environment=None, quiet=False) -> None:
    """Runs a program; its failure ends the build. `quiet` shows what it prints only if it fails."""
    words = [str(word) for word in command]
    variables = {**os.environ, **{name: str(value) for name, value in (environment or {}).items()}}
    capture = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {}
    try:
        done = subprocess.run(words, cwd=cwd, env=variables, **capture)
    except FileNotFoundError:
        sys.exit(f"{words[0]} is missing: see README.md")
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout or b"")
        sys.exit(f"{' '.join(words)}: exit status {done.returncode}")


def place_contract(language: str) -> None:
    """Puts the contract where all generators look for it: in a folder of its own below wit/deps."""
    package = HERE / language / "wit" / "deps" / "pintle"
    package.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONTRACT, package)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", nargs="*", help=f"{', '.join(LANGUAGES)}; all of them if none is named")
    parser.add_argument("--tools", type=Path, default=HERE / ".build" / "tools", help="folder for the tools")
    parser.add_argument("--out", type=Path, default=HERE / ".build", help="folder for LANGUAGE.wasm")
    parser.add_argument("--test", action="store_true", help="test the settings instead of building the component")
    options = parser.parse_args()
    unknown = set(options.language) - set(LANGUAGES)
    if unknown:
        parser.error(f"unknown language: {', '.join(sorted(unknown))}")
    build = Build(options.tools.resolve(), options.out.resolve())
    for language in options.language or LANGUAGES:
        place_contract(language)
        if options.test:
            getattr(build, f"test_{language}")()
            continue
        start = time.monotonic()
        component = build.out / f"{language}.wasm"
        shutil.copy(getattr(build, language)(), component)
        print(f"{component}: {component.stat().st_size:,} octets, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()

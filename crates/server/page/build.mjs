// Bundles the page into dist/, which the server's build embeds; with --tests it bundles and runs the tests instead.

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const shared = { bundle: true, jsx: "automatic", jsxImportSource: "preact", logLevel: "warning" };

if (process.argv.includes("--tests")) {
  // Node.js before version 22 reads no TypeScript, so the tests are bundled as the page is.
  const folder = "node_modules/.tests";
  rmSync(folder, { recursive: true, force: true });
  const names = readdirSync("tests").filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: names.map((name) => `tests/${name}`),
    platform: "node",
    format: "esm",
    outdir: folder,
    outExtension: { ".js": ".mjs" },
  });
  const files = names.map((name) => `${folder}/${name.replace(/\.ts$/, ".mjs")}`);
  const { status } = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" });
  process.exit(status ?? 1);
}

// Old files are not embedded beside new ones. What says that the folder's contents are not kept stays.
for (const name of readdirSync("dist")) {
  if (!name.startsWith(".")) rmSync(`dist/${name}`, { recursive: true });
}
await build({
  ...shared,
  entryPoints: { app: "src/main.tsx", style: "src/style.css", frame: "src/frame.css" },
  outdir: "dist",
  // No module: browsers send an Origin header for those, and a plain script needs nothing of what modules have.
  format: "iife",
  target: ["es2021", "chrome100", "firefox104", "safari15.4"],
  minify: true,
  legalComments: "none",
  banner: { js: "/* What is bundled here, and under which licences: licences.txt beside this file. */" },
});
mkdirSync("dist/samples", { recursive: true });
cpSync("samples", "dist/samples", { recursive: true, filter: (path) => !path.endsWith(".py") });
cpSync("src/icon.svg", "dist/icon.svg");
writeFileSync("dist/licences.txt", licences());
// Last, since its age is the bundle's.
cpSync("index.html", "dist/index.html");

/** The licences of what is bundled go where it goes. */
function licences() {
  const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
  const texts = Object.entries(dependencies).map(([name, version]) => {
    const file = readdirSync(`node_modules/${name}`).find((found) => /^licen[cs]e/i.test(found));
    if (!file) throw new Error(`node_modules/${name} has no licence file`);
    return `${name} ${version}\n\n${readFileSync(`node_modules/${name}/${file}`, "utf8").trim()}\n`;
  });
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

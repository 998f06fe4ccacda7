import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const folder = new URL('..', import.meta.url).pathname;
const ENTRIES = ['', '/express', '/fastify', '/http'];

test('what is packed can be installed alone, and is only what users need', (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'upstream-'));
  t.after(() => rmSync(scratch, { recursive: true }));
  const npm = (...args) => execFileSync('npm', [...args, '--silent', '--offline'], { cwd: scratch, encoding: 'utf8' });
  const [packed] = JSON.parse(npm('pack', folder, '--json'));
  const others = packed.files.map(({ path }) => path).filter((path) => !/^(src\/.*\.js|types\/.*\.d\.ts)$/.test(path));
  assert.deepEqual(others.sort(), ['CHANGELOG.md', 'LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json']);
  writeFileSync(join(scratch, 'package.json'), '{"type":"module"}');
  npm('install', `./${packed.filename}`);
  const imports = ENTRIES.map((entry) => `await import('session-gateway-upstream${entry}');`).join('');
  execFileSync(process.execPath, ['--input-type=module', '--eval', imports], { cwd: scratch });
});

test('there are no runtime dependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  assert.equal(dependencies, undefined);
});

test('what is exported is what is declared', async () => {
  for (const entry of ENTRIES) {
    const exported = Object.keys(await import(`session-gateway-upstream${entry}`)).sort();
    const declarations = readFileSync(join(folder, 'types', `${entry.slice(1) || 'index'}.d.ts`), 'utf8');
    const declared = [...declarations.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
    if (/^export default /m.test(declarations)) declared.push('default');
    assert.deepEqual(exported, declared.sort(), entry);
  }
});

test('CommonJS takes the same modules with require and import()', async (t) => {
  const require = createRequire(import.meta.url);
  const stdout = execFileSync(process.execPath, ['--input-type=commonjs', '--eval', IMPORTS], { cwd: folder });
  assert.equal(String(stdout), 'function\n'.repeat(3));
  if (!process.features.require_module) return t.skip('this Node has no require of ES modules');
  for (const entry of ENTRIES) {
    const name = `session-gateway-upstream${entry}`;
    const main = entry === '' ? 'Session' : 'djangoSession';
    assert.equal(typeof require(name)[main], 'function');
    assert.equal(require(name)[main], (await import(name))[main], 'there is one copy');
  }
});

const IMPORTS = `
  (async () => {
    for (const name of ['express', 'fastify', 'http']) {
      console.log(typeof (await import('session-gateway-upstream/' + name)).djangoSession);
    }
  })();`;

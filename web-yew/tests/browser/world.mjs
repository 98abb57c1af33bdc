// What the journeys stand on: a `fanledger dev` of their own with the demo in it, and a Chromium.
//
// Everything waits for a condition with a deadline; nothing waits for a time.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

const run = promisify(execFile);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// The narrowest phone that is about.
export const SIZES = { phone: { width: 360, height: 740 }, desk: { width: 1280, height: 800 } };
export const SCHEMES = ['light', 'dark'];
const PATIENCE_MS = 20_000;
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'];

function needed(name) {
  const value = process.env[name];
  assert.ok(value, `${name} is not set: run \`cargo xtask browser\``);
  return value;
}

export class World {
  static async start() {
    const world = new World();
    world.program = needed('FANLEDGER_TEST_PROGRAM');
    world.directory = await mkdtemp(join(tmpdir(), 'fanledger-browser-'));
    const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('FANLEDGER_') || name.endsWith('_BIN'));
    world.env = {
      ...Object.fromEntries(clean),
      FANLEDGER_DATA_DIR: world.directory,
      FANLEDGER_LISTEN: '127.0.0.1:0',
      FANLEDGER_METRICS_LISTEN: '127.0.0.1:0',
    };
    world.dev = spawn(world.program, ['dev'], { env: world.env, stdio: ['ignore', 'ignore', 'inherit'] });
    world.ended = new Promise((resolve) => world.dev.once('exit', resolve));
    try {
      world.places = await world.ready();
      world.url = world.places.gateway_url;
      await world.fanledger('seed');
      await world.fanledger('stripe', 'sync');
      world.browser = await chromium.launch({
        executablePath: needed('FANLEDGER_TEST_CHROMIUM'),
        env: { ...process.env, LD_LIBRARY_PATH: process.env.FANLEDGER_TEST_CHROMIUM_LIBRARIES ?? '' },
        args: FLAGS,
      });
      return world;
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  /** Waits until `dev` says where it is; it does so once it is ready. */
  async ready() {
    const deadline = Date.now() + 90_000;
    for (;;) {
      const asked = await run(this.program, ['dev', 'env', '--json'], { env: this.env }).catch(() => null);
      if (asked) return JSON.parse(asked.stdout);
      assert.equal(this.dev.exitCode, null, '`fanledger dev` ended');
      assert.ok(Date.now() < deadline, '`fanledger dev` is not ready');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async fanledger(...line) {
    const { stdout } = await run(this.program, line, { env: this.env, maxBuffer: 64 * 1024 * 1024 });
    return stdout.trim();
  }

  async json(...line) {
    return JSON.parse(await this.fanledger(...line, '--json'));
  }

  /** As Postgres's superuser, for what no program of ours may do. */
  async sql(statement) {
    await run(needed('FANLEDGER_TEST_PSQL'), ['-v', 'ON_ERROR_STOP=1', '-qc', statement, this.places.superuser_url]);
  }

  async token(role, subject = `${role}:ana`) {
    return this.fanledger('token', 'mint', '--role', role, '--subject', subject);
  }

  /** A browser of its own for one person. */
  async visitor({ size = SIZES.desk, scheme = 'light' } = {}) {
    const context = await this.browser.newContext({ viewport: size, colorScheme: scheme, reducedMotion: 'reduce' });
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    return new Visitor(this, context, page);
  }

  /** A visitor who is signed in by the link that `make run` prints. */
  async signedIn(role, options) {
    const visitor = await this.visitor(options);
    await visitor.page.goto(`${this.url}/sign-in#${await this.token(role)}`);
    await visitor.page.locator('.shell').waitFor();
    return visitor;
  }

  async stop() {
    await this.browser?.close();
    this.dev.kill('SIGTERM');
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}

export class Visitor {
  constructor(world, context, page) {
    Object.assign(this, { world, context, page, errors: [], clicks: 0 });
    page.on('console', (message) => message.type() === 'error' && this.errors.push(message.text()));
    page.on('pageerror', (error) => this.errors.push(error.message));
  }

  /** Opens a page by its address, and waits until it has what it shows. */
  async open(path) {
    await this.page.goto(this.world.url + path);
    await this.settled();
  }

  async settled() {
    await this.page.locator('h1').waitFor();
    await this.page.waitForFunction(() => !document.querySelector('.loading'));
  }

  async click(locator) {
    this.clicks += 1;
    await locator.click();
  }

  heading(name) {
    return this.page.getByRole('heading', { level: 1, name });
  }

  /** What axe finds; nothing, on a page that everybody can use. */
  async violations() {
    // As an expression of the debugger's: the page's policy allows no script but the app's.
    await this.page.evaluate(axe);
    return this.page.evaluate(async () => {
      const { violations } = await window.axe.run();
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
    });
  }

  /** How far the page is wider than the window. */
  async overflow() {
    return this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  }

  async leave() {
    await this.context.close();
    assert.deepEqual(this.errors, [], 'errors on the console');
  }
}

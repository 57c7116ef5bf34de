// The recipes of README.md and docs as they stand there: a test that runs one fails when the text drifts.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Events, within } from './events.mjs';

const HERE = fileURLToPath(new URL('..', import.meta.url));
const read = (name) => readFileSync(fileURLToPath(new URL(`../../../${name}`, import.meta.url)), 'utf8');
export const README = read('README.md');
export const OPERATIONS = read('docs/operations.md');

const FENCE = /^```(\w+)\n([\s\S]*?)^```$/gm;

/** Every block of a language in a text. */
export const blocks = (language, text = README) =>
  [...text.matchAll(FENCE)].filter(([, name]) => name === language).map(([, , body]) => body);

/** What stands between two texts of a document; the first stands there once. */
export function between(from, to, document = README) {
  const parts = document.split(from);
  if (parts.length !== 2) throw new Error(`the document says ${parts.length - 1} times: ${from}`);
  const rest = parts[1].split(to);
  if (rest.length < 2) throw new Error(`the document does not say behind "${from}": ${to}`);
  return rest[0];
}

/** The only block of a language in a text. */
export function block(language, text) {
  const all = blocks(language, text);
  if (all.length !== 1) throw new Error(`${all.length} blocks of ${language} instead of one in: ${text.slice(0, 80)}`);
  return all[0];
}

/** The text with every one of the pairs replaced; each must stand in it. */
export function filled(text, pairs) {
  return Object.entries(pairs).reduce((done, [from, to]) => {
    if (!done.includes(from)) throw new Error(`not in the recipe: ${from}\n${text}`);
    return done.replaceAll(from, to);
  }, text);
}

/** A recipe's program in a Node process of its own, with the packages of the tests. It listens where there is room. */
export class Program {
  events = new Events('program');

  static async start(code, { env = {}, listens = true } = {}) {
    const program = new Program();
    const told = 'listen(0, "127.0.0.1", function () { console.log(JSON.stringify(["listening", this.address().port])); })';
    const text = code.replace(/listen\(\d+, "127\.0\.0\.1"\)/, told);
    if (listens && text === code) throw new Error(`it listens nowhere: ${code}`);
    program.child = spawn(process.execPath, ['--input-type=module', '--eval', text], {
      cwd: HERE, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'],
    });
    program.exited = new Promise((done) => program.child.once('exit', done));
    createInterface({ input: program.child.stdout }).on('line', (line) => {
      let event = ['said', line];
      try {
        event = JSON.parse(line);
      } catch {}
      program.events.push(...event);
    });
    if (listens) program.url = `http://127.0.0.1:${await program.events.next('listening')}`;
    return program;
  }

  async stop() {
    this.child.kill('SIGKILL');
    await within(this.exited, 'the program ends');
  }
}

// One word for the end of a session: at its client, in the log, in the metrics and in the admin list.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { admin, metric } from './admin.mjs';

const REFUSALS = readFileSync(fileURLToPath(new URL('../../../docs/refusals.md', import.meta.url)), 'utf8');

/** What docs/refusals.md promises for each word: `{ message, status, code }`. */
export const WORDS = Object.fromEntries(
  [...REFUSALS.matchAll(/^\| `(\w+)` \| ([^|]+) \| (\d{3}) \| (\d{4}) \|$/gm)].map(([, word, message, status, code]) => [
    word, { message: message.trim(), status: Number(status), code: Number(code) },
  ]),
);

const counter = (word) => `siogate_sessions_ended_total{by="gate",reason="${word}"}`;

/** The only session of this user, as the admin list has it. */
export async function listed(gate, subject) {
  const { sessions } = await admin(gate, `sessions?subject=${encodeURIComponent(subject)}`);
  assert.equal(sessions.length, 1, JSON.stringify(sessions));
  return sessions[0];
}

/** What a stock client of version 4 was told. */
function told(socket, transport, word) {
  return socket.disconnected().then(({ details, body, at }) => {
    const { message, status, code } = WORDS[word];
    if (transport === 'polling') {
      assert.equal(details?.description, status, body);
      const said = JSON.parse(body);
      assert.deepEqual([said.reason, said.message], [word, message]);
    } else {
      assert.deepEqual([details?.context?.code, details?.context?.reason], [code, word]);
    }
    return at;
  });
}

/**
 * Runs `act` and proves that the gate ends the session of this socket with the word, and says so everywhere. Nobody else may
 * end with the same word meanwhile. Resolves with what each place said.
 */
export async function endsEverywhere({ gate, socket, transport, subject, word }, act) {
  const inside = await listed(gate, subject);
  assert.deepEqual([inside.state, inside.reason], ['admitted', null]);
  const before = await metric(gate, counter(word));
  const asked = Date.now();
  await act(inside);
  const at = await told(socket, transport, word);
  const record = await gate.log.next('session ended', (one) => one.session === inside.session);
  assert.deepEqual([record.by, record.reason, record.subject], ['gate', word, subject], 'in the log');
  assert.equal(await metric(gate, counter(word)), before + 1, 'in the metrics');
  assert.equal((await admin(gate, `sessions/${inside.session}`)).status, 404, 'it is inside still');
  const { sessions } = await admin(gate, `sessions?state=ended&subject=${encodeURIComponent(subject)}`);
  const [ended] = (sessions ?? []).filter(({ session }) => session === inside.session);
  assert.deepEqual([ended?.state, ended?.by, ended?.reason], ['ended', 'gate', word], 'in the admin list');
  return { inside, record, ended, took: at - asked };
}

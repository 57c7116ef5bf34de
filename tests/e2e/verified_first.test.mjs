// The backend accepts no connection and reads no byte of a client until its credential is verified.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { PLACES, TRANSPORTS, client, credential, freshTag, stopPython } from './lib/clients.mjs';
import { DIRECT, Gate, trust } from './lib/gate.mjs';
import { Issuer, SigningKey, makeToken, nowSeconds } from './lib/issuer.mjs';
import { RawPolling, RawSocket, SilentBackend, rawExchange } from './lib/raw.mjs';

/** Each a credential that must not open the door. */
const BAD = {
  'expired': { code: 'token_expired', make: (issuer) => issuer.expired() },
  'not yet valid': { code: 'token_not_yet_valid', make: (issuer) => issuer.sign({ nbf: nowSeconds() + 900 }) },
  'tampered': { code: 'signature_invalid', make: (issuer) => issuer.tampered() },
  'of another audience': { code: 'audience_mismatch', make: (issuer) => issuer.sign({ aud: 'billing' }) },
  'of another issuer': { code: 'issuer_unknown', make: (issuer) => issuer.sign({ iss: 'https://elsewhere.example' }) },
  'of an unknown key': { code: 'key_unknown', make: (issuer) => issuer.sign({}, { key: new SigningKey('ES256') }) },
  'HMAC over the public key': { code: 'algorithm_not_allowed', make: (issuer) => overPublicKey(issuer) },
  'unsigned': { code: ['algorithm_not_allowed', 'credential_malformed'], make: (issuer) => unsigned(issuer) },
  'without exp': { code: 'claim_rejected', make: (issuer) => issuer.sign({ exp: undefined }) },
  'without sub': { code: 'claim_rejected', make: (issuer) => issuer.sign({ sub: undefined }) },
  'garbled': { code: 'credential_malformed', make: () => 'not.a.token' },
  'one long word': { code: 'credential_malformed', make: () => 'x'.repeat(2000) },
};

function overPublicKey(issuer) {
  const [key] = issuer.keys;
  const pem = key.publicKey.export({ type: 'spki', format: 'pem' });
  return makeToken('HS256', pem, { kid: key.kid }, issuer.claims({}));
}

function unsigned(issuer) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none', typ: 'JWT' })}.${part(issuer.claims({}))}.`;
}

let issuer;
let backend;
const gates = {};

const untouched = () => {
  assert.equal(backend.connections, 0, 'the backend was dialled');
  assert.equal(backend.bytes, 0, 'the backend was spoken to');
};

describe('nothing reaches the backend before the credential is verified', { skip: DIRECT && 'needs the gate' }, () => {
  before(async () => {
    issuer = await Issuer.start();
    backend = await SilentBackend.start();
    for (const reject of ['connect_error', 'http']) {
      gates[reject] = await Gate.start({
        upstream: { urls: [backend.url] },
        issuer: [trust(issuer)],
        socketio: { probe: false, on_reject: reject, connect_deadline: '1s', client_bundle: 'deny' },
        http: { route: [{ path: '/api', auth: 'require' }, { path: '/none', auth: 'deny' }] },
      }, { ready: false });
    }
  });

  after(async () => {
    await stopPython();
    for (const gate of Object.values(gates)) await gate.stop();
    await backend?.stop();
    await issuer?.stop();
  });

  for (const reject of ['connect_error', 'http']) {
    describe(`on_reject = "${reject}"`, { concurrency: 6 }, () => {
      for (const [name, { code, make }] of Object.entries(BAD)) {
        for (const library of name === 'expired' ? ['v4', 'v3', 'v2', 'python'] : ['v4']) {
          for (const transport of Object.keys(TRANSPORTS)) {
            for (const place of PLACES.filter((one) => library !== 'v2' || one !== 'auth')) {
              it(`${library} ${transport} ${place}: a token ${name}`, async () => {
                const connection = client(library, gates[reject].url, { transport, ...credential(place, make(issuer)) });
                try {
                  const [socket] = connection.open(['/']);
                  const { data, message } = await socket.refusal();
                  if (reject === 'connect_error' || place === 'auth') {
                    assert.ok([code].flat().includes(data?.code), `${data?.code} instead of ${code}: ${message}`);
                  }
                  untouched();
                } finally {
                  await connection.close();
                }
              });
            }
          }
        }
      }
    });
  }

  describe('no credential at all', { concurrency: 6 }, () => {
    for (const transport of Object.keys(TRANSPORTS)) {
      for (const library of ['v4', 'v3', 'python']) {
        it(`${library} ${transport}: CONNECT without a token`, async () => {
          const connection = client(library, gates.connect_error.url, { transport, auth: { room: 'lobby' } });
          try {
            const [socket] = connection.open(['/']);
            assert.equal((await socket.refusal()).data?.code, 'credential_missing');
            untouched();
          } finally {
            await connection.close();
          }
        });
      }
      it(`v2 ${transport}: handshake without a token`, async () => {
        const connection = client('v2', gates.http.url, { transport });
        try {
          const [socket] = connection.open(['/']);
          await socket.refusal();
          untouched();
        } finally {
          await connection.close();
        }
      });
    }

    it('a WebSocket that says nothing is closed at the deadline', async () => {
      const socket = new RawSocket(gates.connect_error.url, { query: { tag: freshTag() } });
      await socket.opened();
      await socket.closed();
      untouched();
    });

    it('a poller that says nothing is ended at the deadline', async () => {
      const polling = new RawPolling(gates.connect_error.url);
      await polling.opened();
      for (;;) {
        const { status, body } = await polling.get();
        if (status !== 200) break;
        for (const packet of body.split('\x1e')) assert.match(packet, /^(2|6|1|44.*)$/s);
        if (body.includes('2')) await polling.post('3');
      }
      untouched();
    });

    for (const packet of ['42["echo",1]', '41', '2', '40null', '40[]', '40{"token":', '451-["binary",{"_placeholder":true,"num":0}]', '4', 'x']) {
      it(`a WebSocket that begins with ${packet}`, async () => {
        const socket = new RawSocket(gates.connect_error.url);
        await socket.opened();
        socket.send(packet);
        await socket.closed();
        untouched();
      });
    }

    it('an event pipelined behind a bad CONNECT', async () => {
      const socket = new RawSocket(gates.connect_error.url);
      await socket.opened();
      socket.send(`40${JSON.stringify({ token: issuer.expired() })}`);
      socket.send('42["echo",1]');
      assert.match(await socket.message(), /^44\{/);
      untouched();
      socket.terminate();
    });

    it('a CONNECT in pieces that never ends', async () => {
      const socket = new RawSocket(gates.connect_error.url);
      await socket.opened();
      socket.ws.send('40{"token":"', { fin: false });
      await socket.closed();
      untouched();
    });
  });

  describe('requests beside a session', { concurrency: 6 }, () => {
    const head = (line, extra = '') => `${line} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n${extra}\r\n`;
    const upgrade = (line, version = 13, protocol = 'websocket') => (
      `${line} HTTP/1.1\r\nHost: gate\r\nConnection: close, Upgrade\r\nUpgrade: ${protocol}\r\nSec-WebSocket-Version: ${version}\r\n`
      + 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
    );
    const requests = {
      'preflight': head('OPTIONS /socket.io/?EIO=4&transport=polling', 'Origin: http://a.example\r\nAccess-Control-Request-Method: GET\r\n'),
      'a made-up sid': head('GET /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA'),
      'a made-up sid in a POST': head('POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA', 'Content-Length: 1\r\n').concat('1'),
      'two sids': head('GET /socket.io/?EIO=4&transport=polling&sid=a&%73id=b'),
      'an encoded path': head('GET /%73ocket.io/?EIO=4&transport=polling'),
      'a doubled slash': head('GET //socket.io/?EIO=4&transport=polling'),
      'dot segments': head('GET /api/../socket.io/?EIO=4&transport=polling'),
      'something else under the path': head('GET /socket.io/elsewhere'),
      'the client bundle': head('GET /socket.io/socket.io.js'),
      'no route': head('GET /'),
      'a route that requires': head('GET /api/x'),
      'a route that denies': head('GET /none'),
      'webtransport': head('GET /socket.io/?EIO=4&transport=webtransport'),
      'JSONP': head('GET /socket.io/?EIO=4&transport=polling&j=0'),
      'a bad WebSocket version': upgrade('GET /socket.io/?EIO=4&transport=websocket', 777),
      'a WebSocket with a made-up sid': upgrade('GET /socket.io/?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA'),
      'h2c': upgrade('GET /socket.io/?EIO=4&transport=polling', 13, 'h2c'),
      'an upgrade on a route': upgrade('GET /api/x'),
      'CONNECT': 'CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n',
    };
    for (const [name, text] of Object.entries(requests)) {
      it(name, async () => {
        const answer = await rawExchange(gates.http.port, text);
        assert.match(answer, /^HTTP\/1\.1 (2|4)\d\d /, answer);
        untouched();
      });
    }
  });

  describe('once it is verified', () => {
    for (const [transport, place, nth] of [['websocket', 'header', 1], ['polling', 'query', 2], ['websocket', 'auth', 3], ['polling', 'auth', 4]]) {
      it(`${transport} ${place}: the backend is dialled, by one WebSocket`, async () => {
        const token = issuer.sign({ sub: `late-${nth}` });
        const connection = client('v4', gates.connect_error.url, { transport, ...credential(place, token) });
        try {
          connection.open(['/']);
          await backend.events.next('connection');
          const text = await backend.events.next('head');
          // Earlier dials would have been accepted before this one.
          assert.equal(backend.connections, nth);
          assert.match(text, /^GET \/socket\.io\/\?[^ ]*transport=websocket[^ ]* HTTP\/1\.1\r\n/);
          assert.match(text, new RegExp(`^x-auth-subject: late-${nth}\r$`, 'im'));
          assert.ok(!text.includes(token.split('.')[2]), 'the token was passed on');
        } finally {
          await connection.close();
          await backend.events.next('closed');
        }
      });
    }
  });
});

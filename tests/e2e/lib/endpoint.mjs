// An endpoint that answers as it is told: for introspection and call-outs that lie, dawdle or fail.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Events } from './events.mjs';

export class Endpoint {
  asked = [];
  events = new Events('endpoint');

  /** `answer`: (request with `body`) => { status, headers, body } or a promise of it; `null`: never. */
  static async start(answer) {
    const endpoint = new Endpoint();
    endpoint.answer = answer;
    endpoint.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      request.body = Buffer.concat(chunks).toString();
      endpoint.asked.push(request);
      endpoint.events.push('asked', request);
      const said = await endpoint.answer(request);
      if (!said) return;
      const { status = 200, headers = {}, body = {} } = said;
      response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body));
    });
    endpoint.server.listen(0, '127.0.0.1');
    await once(endpoint.server, 'listening');
    endpoint.url = `http://127.0.0.1:${endpoint.server.address().port}/who`;
    return endpoint;
  }

  async stop() {
    this.server.close();
    this.server.closeAllConnections();
  }
}

/** Ways to be no answer, each with a name. */
export const unclear = {
  'a server error': () => ({ status: 500 }),
  'its own refusal to talk': () => ({ status: 429 }),
  'a redirect': () => ({ status: 302, headers: { location: 'http://127.0.0.1:1/' } }),
  'a page': () => ({ headers: { 'content-type': 'text/html' }, body: '<html>ok</html>' }),
  'an empty body': () => ({ body: '' }),
  'a list': () => ({ body: '[]' }),
  'a flood': () => ({ body: `{"active":true,"sub":"x","a":"${'x'.repeat(1 << 20)}"}` }),
  'keys that stand twice': () => ({ body: '{"active":false,"active":true,"sub":"a","sub":"b"}' }),
  silence: () => null,
};

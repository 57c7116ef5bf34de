// The admin listener: its API, and single lines of the metrics.

/** A resource of the API. */
export async function admin(gate, path, { method = 'GET', body } = {}) {
  const answer = await fetch(`${gate.adminUrl}/api/${path}`, {
    method,
    headers: body && { 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, ...(text ? JSON.parse(text) : {}) };
}

/** The value of one line of the metrics, 0 where it is not there yet. */
export async function metric(gate, name) {
  const lines = (await (await fetch(`${gate.adminUrl}/metrics`)).text()).split('\n');
  return Number(lines.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1) ?? 0);
}

// Requests to the API. Every refusal becomes a Problem with the title, the code and the next step of the answer.

export class Problem extends Error {
  constructor(status, body) {
    super(body.title ?? 'The server did not answer as expected');
    this.status = status;
    this.code = body.code ?? `http_${status}`;
    this.nextStep = body.next_steps?.[0] ?? '';
  }
}

async function send(method, path, body) {
  const headers = { accept: 'application/json' };
  // The server refuses changes without this type: a form of another site cannot send it.
  if (method !== 'GET') headers['content-type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem(0, { title: 'The server cannot be reached', code: 'unreachable', next_steps: ['Try again.'] });
  }
  const text = await answer.text();
  const parsed = parse(text);
  if (!answer.ok) throw new Problem(answer.status, parsed ?? {});
  return parsed;
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/** The API below a path: `api('/orgs/acme/api').get('tasks')`. */
export function api(base) {
  const call = (method) => (path, body) => send(method, `${base}/${path}`, body);
  return { base, get: call('GET'), post: call('POST'), put: call('PUT'), delete: call('DELETE') };
}

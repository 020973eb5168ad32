// Live updates: a WebSocket tells that tasks have changed. Each message becomes the event `tasks-changed` of the window.

import { toast } from './dom.js';

const WAIT_MIN = 1_000;
const WAIT_MAX = 30_000;
// The person is not a member any more, or the server does not want this page.
const FINAL_CODES = [1003, 1008];

/** Follows the organisation's tasks until the page is left. */
export function followTasks(organisation) {
  connect({ base: organisation.base, seq: null, wait: WAIT_MIN });
}

function connect(live) {
  const url = new URL(`${live.base}/live`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  // What came while there was no connection is sent again.
  if (live.seq !== null) url.searchParams.set('after', live.seq);
  const socket = new WebSocket(url);
  socket.addEventListener('message', ({ data }) => receive(live, JSON.parse(data)));
  socket.addEventListener('close', ({ code }) => reconnect(live, code));
}

function receive(live, { type, seq }) {
  live.seq = seq;
  if (type === 'ready') live.wait = WAIT_MIN;
  // After `ready`, too: the list was read before, and a change may have come between.
  if (type !== 'position') dispatchEvent(new CustomEvent('tasks-changed'));
}

function reconnect(live, code) {
  if (FINAL_CODES.includes(code)) return toast('Live updates have ended', 'Load the page again.');
  // Not all pages at the same moment.
  setTimeout(() => connect(live), live.wait * (0.5 + Math.random() / 2));
  live.wait = Math.min(live.wait * 2, WAIT_MAX);
}

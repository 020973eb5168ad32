// Small helpers for the document. Content of people is set as text only, never as HTML.

const RANK = { reader: 0, writer: 1, manager: 2 };

/** A copy of a template, without the parts that the role may not use. */
export function clone(id, role = 'manager') {
  const copy = document.getElementById(id).content.cloneNode(true);
  for (const part of copy.querySelectorAll('[data-role]')) {
    if (RANK[role] < RANK[part.dataset.role]) part.remove();
  }
  return copy.firstElementChild;
}

export const isAtLeast = (role, least) => RANK[role] >= RANK[least];

/** Sets texts: `{ '.title': 'Buy milk' }`. */
export function fill(node, texts) {
  for (const [selector, text] of Object.entries(texts)) node.querySelector(selector).textContent = text;
  return node;
}

/** The fields of a form, without spaces at their ends. */
export function values(form) {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
}

/** Runs an action when the form is sent. Its buttons wait until the action has ended. */
export function onSubmit(form, action) {
  form?.addEventListener('submit', (event) => {
    event.preventDefault();
    run(form.querySelectorAll('button'), action);
  });
}

export function onClick(button, action) {
  button?.addEventListener('click', () => run([button], action));
}

/** As onClick, but only the second click acts. */
export function onSecondClick(button, question, action) {
  if (!button) return;
  const label = button.textContent;
  const ask = () => { button.textContent = question; };
  const calm = () => { button.textContent = label; };
  button.addEventListener('blur', calm);
  button.addEventListener('click', () => (button.textContent === label ? ask() : run([button], action).then(calm)));
}

async function run(buttons, action) {
  for (const button of buttons) button.disabled = true;
  try {
    await action();
  } catch (error) {
    report(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

/** Shows an error, as toast() shows a message. */
export function report(error) {
  // The session has ended: the page says so when it starts anew.
  if (error.status === 401) return location.reload();
  if (error.status === undefined) console.error(error);
  toast(error.status === undefined ? 'Something went wrong' : error.message, error.nextStep ?? '', error.code ?? '');
}

/** Shows a message for some seconds, in place of the one before it. */
export function toast(title, text = '', code = '') {
  const toasts = document.getElementById('toasts');
  // A modal dialog hides everything outside it.
  (document.querySelector('dialog[open]') ?? document.body).append(toasts);
  const message = fill(clone('toast'), { '.toast-title': title, '.toast-text': text, '.toast-code': code });
  toasts.replaceChildren(message);
  setTimeout(() => message.remove(), 7000);
}

export const initials = (name) => name.split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? '').join('');

/** How many of a thing: `1 task`, `2 tasks`. */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

// The Swedish form of a date is the one of ISO 8601, which the API uses.
export const today = () => new Date().toLocaleDateString('sv');

const format = (options) => (text) => new Intl.DateTimeFormat(undefined, options).format(new Date(text));
const formatDay = format({ day: 'numeric', month: 'short' });
export const showDay = (day) => (day === today() ? 'Today' : formatDay(`${day}T00:00`));
export const showTime = format({ day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

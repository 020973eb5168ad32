// The start page: sign up an organisation, or go to one of this device.

import { api } from './api.js';
import { clone, fill, onSubmit, values } from './dom.js';
import { forgetKey, keyFor } from './form-key.js';

export function showHome(root) {
  const home = clone('home');
  const form = home.querySelector('.sign-up');
  const { title, name } = form.elements;
  // The address follows the title until the person writes another one.
  title.addEventListener('input', () => { if (!name.dataset.own) name.value = slug(title.value); });
  name.addEventListener('input', () => { name.dataset.own = 'yes'; });
  onSubmit(form, async () => {
    const wanted = values(form);
    const { organisation } = await api('/api').post('organisations', { key: keyFor('sign-up', wanted), ...wanted });
    forgetKey('sign-up');
    location.assign(`/orgs/${organisation}`);
  });
  showKnown(home.querySelector('.known'));
  root.replaceChildren(home);
  title.focus();
}

const slug = (title) =>
  title.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 63).replace(/^-+|-+$/g, '');

// The organisations that this browser was signed in to: names only. The cookies are not readable here.
const known = () => JSON.parse(localStorage.getItem('organisations') ?? '{}');
const remember = (all) => localStorage.setItem('organisations', JSON.stringify(all));
export const addKnown = (name, title) => remember({ ...known(), [name]: title });
export function removeKnown(name) {
  const { [name]: _, ...others } = known();
  remember(others);
}

function showKnown(nav) {
  const list = nav.querySelector('ul');
  for (const [name, title] of Object.entries(known())) {
    const link = document.createElement('a');
    link.className = 'button';
    link.href = `/orgs/${encodeURIComponent(name)}`;
    link.textContent = title;
    const item = document.createElement('li');
    item.append(link);
    list.append(item);
  }
  nav.hidden = list.children.length === 0;
}

/** A page for somebody who may not see the organisation. */
export function showNotice(root, title, text) {
  root.replaceChildren(fill(clone('signed-out'), { '.notice-title': title, '.notice-text': text }));
}

// The exports: make one, download one.

import { clone, counted, fill, onClick, showTime, toast } from './dom.js';

export async function showExports(organisation, session) {
  const view = clone('exports-view', session.role);
  onClick(view.querySelector('.create-export'), async () => {
    const { task_count } = await organisation.post('exports');
    await load(organisation, view);
    toast('Exported', counted(task_count, 'task'));
  });
  await load(organisation, view);
  return view;
}

async function load(organisation, view) {
  const exports = await organisation.get('exports');
  view.querySelector('.export-rows').replaceChildren(...exports.map((made) => exportRow(organisation, made)));
  view.querySelector('.empty').hidden = exports.length > 0;
}

function exportRow(organisation, made) {
  const row = fill(clone('export-row'), {
    '.export-name': counted(made.task_count, 'task'),
    'time': showTime(made.created_at),
  });
  const link = row.querySelector('.download');
  link.href = `${organisation.base}/exports/${made.id}`;
  link.setAttribute('aria-label', `Download the export of ${showTime(made.created_at)}`);
  onClick(row.querySelector('.share'), async () => {
    const { path } = await organisation.post(`exports/${made.id}/link`);
    const address = `${location.origin}${path}`;
    // A page on plain HTTP has no clipboard.
    if (navigator.clipboard) await navigator.clipboard.writeText(address);
    toast(navigator.clipboard ? 'Copied' : 'Link', navigator.clipboard ? 'Anyone can use it for ten minutes.' : address);
  });
  return row;
}

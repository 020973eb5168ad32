// The exports: make one, download one.

import { clone, fill, onClick, showTime, toast } from './dom.js';

export async function showExports(organisation, session) {
  const view = clone('exports-view', session.role);
  onClick(view.querySelector('.create-export'), async () => {
    const { task_count } = await organisation.post('exports');
    await load(organisation, session, view);
    toast('Exported', task_count === 1 ? '1 task' : `${task_count} tasks`);
  });
  await load(organisation, session, view);
  return view;
}

async function load(organisation, session, view) {
  const exports = await organisation.get('exports');
  view.querySelector('.export-rows').replaceChildren(...exports.map((made) => exportRow(session, made)));
  view.querySelector('.empty').hidden = exports.length > 0;
}

function exportRow(session, made) {
  const row = fill(clone('export-row'), {
    '.export-name': made.task_count === 1 ? '1 task' : `${made.task_count} tasks`,
    'time': showTime(made.created_at),
  });
  const link = row.querySelector('.download');
  link.href = `/orgs/${session.organisation}/api/exports/${made.id}`;
  link.setAttribute('aria-label', `Download the export of ${showTime(made.created_at)}`);
  return row;
}

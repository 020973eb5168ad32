// The list of tasks: add, mark as done, filter. A click on a task opens it at the side.

import { clone, counted, fill, initials, isAtLeast, onClick, onSubmit, report, showDay, showTime, today, toast, values } from './dom.js';
import { openTask } from './task-sheet.js';

const EMPTY = {
  open: ['Nothing to do', 'Enjoy the quiet, or write down what comes next.'],
  done: ['Nothing done yet', 'Finished tasks appear here.'],
  all: ['No tasks yet', 'The first one is the hardest.'],
};

export async function showTasks(organisation, session) {
  const view = clone('tasks-view', session.role);
  const list = { organisation, session, view, filter: 'open', tasks: [], names: new Map() };
  for (const button of view.querySelectorAll('[data-filter]')) {
    button.addEventListener('click', () => setFilter(list, button.dataset.filter));
  }
  const form = view.querySelector('.add-task');
  onSubmit(form, async () => {
    await organisation.post('tasks', values(form));
    form.reset();
    if (list.filter === 'done') setFilter(list, 'open');
    await load(list);
    form.elements.title.focus();
  });
  // A job makes it in a moment, and a live update shows it.
  onClick(view.querySelector('.make-digest'), () => organisation.post('digest'));
  await load(list);
  addEventListener('tasks-changed', () => refresh(list));
  return view;
}

// Somebody has changed a task. Of many messages at once, the last one counts; a section that was left needs nothing.
async function refresh(list) {
  list.isStale = true;
  if (list.isRefreshing || !list.view.isConnected) return;
  list.isRefreshing = true;
  try {
    while (list.isStale) {
      list.isStale = false;
      const before = JSON.stringify(list.tasks);
      const tasks = await list.organisation.get('tasks');
      // The person's own change is shown already: another rendering would take the focus away.
      if (JSON.stringify(tasks) !== before) await load(list);
      else await showDigest(list);
    }
  } catch (problem) {
    report(problem);
  } finally {
    list.isRefreshing = false;
  }
}

async function load(list) {
  const [tasks, people] = await Promise.all([list.organisation.get('tasks'), list.organisation.get('people')]);
  await Promise.all([showCounts(list), showDigest(list)]);
  list.tasks = tasks;
  list.names = new Map(people.map(({ id, name }) => [id, name]));
  render(list);
}

async function showCounts({ organisation, view }) {
  const { open, done } = await organisation.get('counts');
  view.querySelector('.counts').textContent = `${open} open, ${done} done`;
}

async function showDigest({ organisation, view }) {
  const [digest, { plan }] = await Promise.all([organisation.get('digest'), organisation.get('plan')]);
  const made = digest ? `Digest of ${showTime(digest.made_at)}: ${digest.open} open, ${digest.overdue} overdue.` : 'No digest yet.';
  view.querySelector('.digest').textContent = `Plan: ${plan}. ${made}`;
}

function setFilter(list, filter) {
  list.filter = filter;
  for (const button of list.view.querySelectorAll('[data-filter]')) {
    button.setAttribute('aria-pressed', String(button.dataset.filter === filter));
  }
  render(list);
}

function render(list) {
  const isShown = { open: (task) => !task.done, done: (task) => task.done, all: () => true }[list.filter];
  const shown = list.tasks.filter(isShown);
  list.view.querySelector('.task-rows').replaceChildren(...shown.map((task) => taskRow(list, task)));
  const empty = list.view.querySelector('.empty');
  empty.hidden = shown.length > 0;
  const [title, text] = EMPTY[list.filter];
  fill(empty, { '.empty-title': title, '.empty-text': text });
}

function taskRow(list, task) {
  const row = clone('task-row');
  fill(row, {
    '.task-title': task.title,
    '.due': task.due_on ? showDay(task.due_on) : '',
    '.comment-count': task.comments ? counted(task.comments, 'comment') : '',
  });
  row.classList.toggle('done', task.done);
  markDue(row.querySelector('.due'), task);
  showAssignee(row.querySelector('.avatar'), list.names.get(task.assignee));
  const check = row.querySelector('.check');
  check.checked = task.done;
  check.disabled = !isAtLeast(list.session.role, 'writer');
  check.setAttribute('aria-label', `Done: ${task.title}`);
  check.addEventListener('change', () => markDone(list, row, task, check));
  row.querySelector('.row-main').addEventListener('click', () => openTask(list, task.id, () => load(list)));
  return row;
}

function markDue(badge, { due_on, done }) {
  badge.classList.toggle('today', !done && due_on === today());
  badge.classList.toggle('overdue', !done && Boolean(due_on) && due_on < today());
}

function showAssignee(avatar, name) {
  if (!name) return;
  avatar.hidden = false;
  avatar.textContent = initials(name);
  avatar.title = name;
}

// The row changes at once. If the server refuses, the list is loaded as it is now.
async function markDone(list, row, task, check) {
  const { done } = Object.assign(task, { done: check.checked });
  row.classList.toggle('done', done);
  // A second click has to wait: it would send the old version.
  check.disabled = true;
  try {
    const changed = await list.organisation.put(`tasks/${task.id}/done`, { done, version: task.version });
    task.version = changed.version;
    await showCounts(list);
    if (list.filter !== 'all') toast(done ? 'Done' : 'Open again', task.title);
    render(list);
  } catch (problem) {
    report(problem);
    await load(list).catch(report);
  }
}

// One task at the side of the page: its fields and its comments.

import { clone, fill, initials, isAtLeast, onSecondClick, onSubmit, report, showTime, toast, values } from './dom.js';

/** Opens the task. `onChange` runs after each change. */
export async function openTask(list, id, onChange) {
  try {
    const { organisation, session, names } = list;
    const [task, comments] = await Promise.all([
      organisation.get(`tasks/${id}`),
      organisation.get(`tasks/${id}/comments`),
    ]);
    const sheet = clone('task-dialog', session.role);
    const open = { organisation, session, names, sheet, task, onChange };
    fillForm(open);
    for (const comment of comments) addComment(open, comment);
    connect(open);
    // A double click asks twice.
    if (document.querySelector('dialog')) return;
    document.body.append(sheet);
    sheet.showModal();
  } catch (problem) {
    report(problem);
  }
}

function fillForm({ sheet, session, names, task }) {
  const { elements } = sheet.querySelector('.task-form');
  elements.assignee.append(...[...names].map(([id, name]) => new Option(name, id)));
  showFields(elements, task);
  if (isAtLeast(session.role, 'writer')) return;
  for (const field of elements) Object.assign(field, { disabled: true, placeholder: '' });
}

function showFields(elements, task) {
  for (const field of ['title', 'notes', 'due_on', 'assignee']) elements[field].value = task[field] ?? '';
}

function connect(open) {
  const { sheet, organisation, task, onChange } = open;
  const path = `tasks/${task.id}`;
  const form = sheet.querySelector('.task-form');
  onSubmit(form, async () => {
    const { due_on, assignee, ...texts } = values(form);
    const fields = { ...texts, due_on: due_on || null, assignee: assignee || null };
    try {
      await organisation.put(path, { ...fields, version: task.version });
    } catch (problem) {
      if (problem.code === 'task_changed') await showCurrent(open);
      throw problem;
    }
    sheet.close();
    toast('Saved', fields.title);
    await onChange();
  });
  onSecondClick(sheet.querySelector('.delete'), 'Really delete?', async () => {
    try {
      await organisation.delete(path, { version: task.version });
    } catch (problem) {
      if (problem.code === 'task_changed') await showCurrent(open);
      throw problem;
    }
    sheet.close();
    toast('Deleted', task.title);
    await onChange();
  });
  const comment = sheet.querySelector('.comment-form');
  onSubmit(comment, async () => {
    addComment(open, await organisation.post(`${path}/comments`, values(comment)));
    comment.reset();
    await onChange();
  });
  sheet.querySelector('.close').addEventListener('click', () => sheet.close());
  // A click beside the sheet closes it.
  sheet.addEventListener('click', (event) => { if (event.target === sheet) sheet.close(); });
  sheet.addEventListener('close', () => {
    document.body.append(document.getElementById('toasts'));
    sheet.remove();
  });
}

// Somebody else was faster: the fields show the task as it is now. Texts that the person wrote stay in the notes, below the
// others' text, so that nothing is lost. The list behind the sheet shows the change, too.
async function showCurrent(open) {
  const form = open.sheet.querySelector('.task-form');
  const mine = values(form);
  const seen = { ...open.task };
  Object.assign(open.task, await open.organisation.get(`tasks/${open.task.id}`));
  showFields(form.elements, open.task);
  const lost = ['title', 'notes'].filter((field) => mine[field] !== seen[field] && mine[field] !== open.task[field]);
  form.elements.notes.value = [open.task.notes, ...lost.map((field) => mine[field])].filter(Boolean).join('\n\n');
  await open.onChange();
}

function addComment({ sheet, names }, comment) {
  const author = names.get(comment.author) ?? 'A former member';
  const node = fill(clone('comment'), {
    '.author': author,
    '.avatar': initials(author),
    'time': showTime(comment.created_at),
    '.comment-text': comment.text,
  });
  sheet.querySelector('.comment-list').append(node);
}

// Starts the page: the start page at `/`, an organisation at `/orgs/{name}`. The part after `#` names the section.

import { api } from './api.js';
import { clone, fill, initials, isAtLeast, onClick, report, toast } from './dom.js';
import { showExports } from './exports.js';
import { addKnown, removeKnown, showHome, showNotice } from './home.js';
import { followTasks } from './live.js';
import { showMembers } from './members.js';
import { showTasks } from './tasks.js';

const ROLE_NAMES = { reader: 'Viewer', writer: 'Editor', manager: 'Manager' };
const SECTIONS = { tasks: showTasks, members: showMembers, exports: showExports };

// A sign-in link has its token behind `#`, so that no server and no log sees it in an address. An operator's link has a ticket.
const LINK = /^#(sign-in|support)=(.+)$/;

const root = document.getElementById('app');
const place = /^\/orgs\/([^/]+)$/.exec(location.pathname);

start().catch(report);

async function start() {
  if (!place) return showHome(root);
  const organisation = api(`/orgs/${place[1]}/api`);
  const linkProblem = await useLink(organisation).catch((problem) => problem);
  try {
    showWorkspace(organisation, await organisation.get('session'));
    // A link that ended does not end a session.
    if (linkProblem) toast(linkProblem.message, 'You are still signed in.', linkProblem.code);
  } catch (problem) {
    showRefusal(linkProblem ?? problem);
  }
}

async function useLink(organisation) {
  const link = LINK.exec(location.hash);
  if (!link) return;
  // Removed at once: the address stays in the history of the browser.
  history.replaceState(null, '', location.pathname);
  const [, kind, secret] = link;
  const { organisation: name } = kind === 'support'
    ? await organisation.post('session/support', { ticket: secret })
    : await organisation.post('session', { token: secret });
  // The cookie is for the organisation's name. The address may have a former name.
  if (name !== place[1]) location.replace(`/orgs/${name}`);
}

function showRefusal(problem) {
  if (problem.status === 401) {
    showNotice(root, 'You are not signed in', 'Open the sign-in link that you got, or ask a manager for a new one.');
  } else if (problem.status === 404) {
    showNotice(root, 'Organisation not found', 'This organisation does not exist, or you are not one of its members.');
  } else {
    showNotice(root, problem.message, problem.nextStep ?? '');
  }
}

function showWorkspace(organisation, session) {
  const title = session.title || session.organisation;
  const name = session.name ?? session.person;
  const parts = clone('workspace', session.role);
  fill(parts, {
    '.organisation': title,
    '.me-name': name,
    '.me-role': ROLE_NAMES[session.role],
    '.me .avatar': initials(name),
  });
  document.title = `${title} – Tasks`;
  const banner = parts.querySelector('.support');
  banner.hidden = !session.staff;
  if (session.staff) banner.textContent = `Support: ${session.staff} acts as ${name}. ${title} sees this in its audit log.`;
  else addKnown(session.organisation, title);
  onClick(parts.querySelector('.sign-out'), async () => {
    await organisation.delete('session');
    removeKnown(session.organisation);
    location.assign('/');
  });
  root.replaceChildren(parts);
  const show = () => showSection(organisation, session);
  addEventListener('hashchange', show);
  show();
  followTasks(organisation);
}

async function showSection(organisation, session) {
  if (LINK.test(location.hash)) return location.reload();
  const view = root.querySelector('.view');
  // A notice has replaced the sections.
  if (!view) return location.reload();
  const wanted = location.hash.slice(1);
  const isAllowed = Object.hasOwn(SECTIONS, wanted) && (wanted !== 'members' || isAtLeast(session.role, 'manager'));
  const section = isAllowed ? wanted : 'tasks';
  for (const tab of root.querySelectorAll('.tabs a')) {
    if (tab.hash === `#${section}`) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  document.getElementById('toasts').replaceChildren();
  view.dataset.section = section;
  try {
    const content = await SECTIONS[section](organisation, session);
    // The person may have gone on before the answer came.
    if (view.dataset.section === section) view.replaceChildren(content);
  } catch (problem) {
    if (problem.status === 401 || problem.status === 404) return showRefusal(problem);
    report(problem);
  }
}

// Reports a label: the form as JSON to /api/labels, with the token that this tab remembers.

const TOKEN = "noctule.token";
const form = document.getElementById("label-form");
const result = document.getElementById("label-result");

form.token.value = sessionStorage.getItem(TOKEN) ?? "";

function body() {
  const values = {};
  for (const field of form.elements) {
    const text = field.value.trim();
    if (!field.name || field.name === "token" || !text) continue;
    values[field.name] = "number" in field.dataset && text !== "" ? asNumber(text) : text;
  }
  return values;
}

// What is no number goes as it was typed, so that the server's answer names the field.
function asNumber(text) {
  const value = Number(text.replace(",", "."));
  return Number.isFinite(value) ? value : text;
}

function markInvalid(names) {
  for (const field of form.elements) {
    if (names.includes(field.name)) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  if (names.length) form.elements[names[0]]?.focus();
}

function tell(className, text) {
  result.className = className;
  result.textContent = text;
}

function failure(error) {
  const fields = Array.isArray(error.detail) ? error.detail : [];
  markInvalid(fields.map((each) => each.field));
  const reasons = fields.map((each) => `${each.field.replaceAll("_", " ")}: ${each.message}`);
  tell("failed", reasons.length ? reasons.join("; ") : error.message);
}

async function report() {
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${form.token.value}` },
    body: JSON.stringify(body()),
  });
  const answer = await response.json();
  if (!response.ok) return failure(answer.error);
  sessionStorage.setItem(TOKEN, form.token.value);
  markInvalid([]);
  tell("done", `Recorded: ${answer.object_id} is ${answer.class_name} (label ${answer.label_id}).`);
  for (const name of ["object_id", "survey", "class_id", "confidence", "redshift", "observed_mjd_tai", "comment"]) {
    form.elements[name].value = "";
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const missing = [...form.elements].filter((field) => field.required && !field.value.trim());
  if (missing.length) {
    markInvalid(missing.map((field) => field.name));
    return tell("failed", "Fill in the fields with a star.");
  }
  const button = form.querySelector("button");
  button.disabled = true;
  await report().catch(() => tell("failed", "The portal does not answer: nothing was recorded. Try again."));
  button.disabled = false;
});

// "report" in a row fills the form in without leaving the page.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.report");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  form.object_id.value = link.dataset.object;
  form.survey.value = link.dataset.survey;
  tell("", "");
  document.getElementById("report").scrollIntoView();
  form.class_id.focus({ preventScroll: true });
});

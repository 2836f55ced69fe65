/** The camera in a dialog. */

import { CaptionError } from "./errors.js";

const REASONS = {
  NotAllowedError: "The camera may not be used: allow it for this page in the browser's settings, or choose a photo.",
  NotFoundError: "There is no camera here: choose a photo instead.",
  NotReadableError: "The camera is busy: close what else uses it, or choose a photo.",
};

/** A photo that was taken in the dialog (a Blob), or null if it was closed. Throws CaptionError without a camera. */
export async function openCamera(dialog) {
  if (!navigator.mediaDevices) {
    throw new CaptionError("The camera works on pages of https only: choose a photo instead.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (cause) {
    throw new CaptionError(REASONS[cause.name] ?? `The camera cannot be used: ${cause.message}.`, { cause });
  }
  const video = dialog.querySelector("video"), [shoot, close] = dialog.querySelectorAll("button");
  video.srcObject = stream;
  dialog.showModal();
  try {
    return await new Promise(taken => {
      shoot.onclick = () => { if (video.videoWidth) taken(frameOf(video)); };
      close.onclick = () => taken(null);
      dialog.oncancel = () => taken(null); // the Escape key
    });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    dialog.close();
  }
}

function frameOf(video) {
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise(made => canvas.toBlob(made, "image/png"));
}

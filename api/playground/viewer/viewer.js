// The element kz-viewer.
import { Part } from "../shell/part.js";

class Viewer extends Part {}

customElements.define("kz-viewer", Viewer);

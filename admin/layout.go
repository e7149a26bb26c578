package admin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"quorate/pki"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// templates are those of all nouns. Each has a file; what it defines begins with the name of that file, so that none overwrites another's.
var templates = template.Must(template.New("").Funcs(functions).ParseFS(templateFiles, "templates/*.html"))

// staticPath is where scripts and styles are.
const staticPath = root + "static/"

// asset is one file that pages load.
type asset struct {
	content     []byte
	contentType string
	// hash goes into its address, so that a browser may keep it for ever.
	hash string
}

// contentTypes are those of what may be served, by the ending of its name. Licence texts go with the source and are not served.
var contentTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

// assets are the files by name, and assetsHash is that of all of them and the templates: a page that was made from others is loaded anew.
var assets, assetsHash = loadAssets()

// hashBytes is how much of a hash is enough to tell one version of a file from another.
const hashBytes = 8

func loadAssets() (map[string]asset, string) {
	all, found := sha256.New(), make(map[string]asset)
	for _, files := range []embed.FS{staticFiles, templateFiles} {
		err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := files.ReadFile(name)
			if err != nil {
				return err
			}
			all.Write(content)
			if contentType, ok := contentTypes[path.Ext(name)]; ok {
				sum := sha256.Sum256(content)
				found[path.Base(name)] = asset{content, contentType, hex.EncodeToString(sum[:hashBytes])}
			}
			return nil
		})
		if err != nil {
			panic(err) // Embedded files are always there.
		}
	}
	return found, hex.EncodeToString(all.Sum(nil)[:hashBytes])
}

// assetURL is the address of a file.
func assetURL(name string) string { return staticPath + name + "?" + assets[name].hash }

// version is what an open page compares to know whether it is out of date.
func (s *Server) version() string { return assetsHash + "-" + s.config.Version }

// staticAge is for how long a browser may keep a file: its address changes with its content.
const staticAge = "private, max-age=31536000, immutable"

func (s *Server) static(w http.ResponseWriter, r *http.Request) {
	file, ok := assets[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", file.contentType)
	if r.URL.RawQuery == file.hash {
		w.Header().Set("Cache-Control", staticAge)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.content))
}

// layout is what every page has around its screen, change or trouble.
type layout struct {
	Title   string
	Nouns   []navigation
	Member  string
	Version string
	Visitor pki.Identity
	// Now is the member's wall clock, by which the browser tells ages, in milliseconds.
	Now int64
	// Done says what a change did that has led here.
	Done string

	// Live is the address of the screen's stream, empty if there is none.
	Live           string
	Status, Alerts template.HTML
	Main           template.HTML

	Confirmation *confirmation
	Trouble      *trouble
}

// navigation is a noun as the navigation shows it.
type navigation struct {
	Title, Path string
	Current     bool
}

func (s *Server) layout(r *http.Request, title string) *layout {
	l := &layout{Title: title, Member: s.config.Member, Version: s.config.Version, Visitor: visitor(r), Now: s.config.Now().UnixMilli()}
	for _, n := range nouns {
		here := strings.TrimPrefix(r.URL.Path, root)
		current := here == n.path || n.path != "" && strings.HasPrefix(here, n.path+"/")
		l.Nouns = append(l.Nouns, navigation{Title: n.title, Path: root + n.path, Current: current})
	}
	return l
}

// fill puts a rendering where it belongs. Its parts come out of templates, which have escaped what is in them.
func (l *layout) fill(page rendering) {
	l.Status, l.Alerts, l.Main = template.HTML(page.parts[0].html), template.HTML(page.parts[1].html), template.HTML(page.main())
}

// inDialog tells whether the answer goes into a dialog of a page that is open, and not into a page of its own.
func inDialog(r *http.Request) bool { return r.Header.Get("HX-Request") == "true" }

// fragment renders a template that goes into another one. Templates escape what is in them.
func (s *Server) fragment(name string, data any) template.HTML {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		// A template that fails is a bug, which shall not show half a page as a whole one.
		s.config.Logger.Error("a part of the page could not be rendered", "part", name, "error", err)
		return "This part could not be rendered; the member's log has more."
	}
	return template.HTML(b.String())
}

// write renders a template as the answer.
func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		s.config.Logger.Error("a page could not be rendered", "path", r.URL.Path, "error", err)
		http.Error(w, "this page could not be rendered; the member's log has more", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	// A browser that went away is no one to tell.
	_, _ = w.Write(b.Bytes())
}

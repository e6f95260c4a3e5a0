package hubapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// Space is what Hub clients may know of a Space of this host. Its owner is whoever they ask for: names differ here.
type Space struct {
	Name, Title, SDKVersion string
	URL                     string // where visitors reach it
	Stage                   string // the Hub's word
	Hardware                string // the Hub's word
	Private                 bool
}

// info is the Hub's GET /api/spaces/{owner}/{name}, as far as huggingface_hub's SpaceInfo has it.
type info struct {
	ID        string         `json:"id"`
	Author    string         `json:"author"`
	Private   bool           `json:"private"`
	Disabled  bool           `json:"disabled"`
	Gated     bool           `json:"gated"`
	SDK       string         `json:"sdk"`
	Host      string         `json:"host"`
	Subdomain string         `json:"subdomain"`
	Likes     int            `json:"likes"`
	Tags      []string       `json:"tags"`
	Siblings  []any          `json:"siblings"`
	CardData  map[string]any `json:"cardData"`
	Runtime   runtime        `json:"runtime"`
}

type runtime struct {
	Stage    string         `json:"stage"`
	Hardware map[string]any `json:"hardware"`
	Timeout  *int           `json:"gcTimeout"`
	Storage  *string        `json:"storage"`
}

func (s Space) runtime() runtime {
	return runtime{Stage: s.Stage, Hardware: map[string]any{"current": s.Hardware, "requested": s.Hardware}}
}

// registerSpaces mounts what gradio_client and huggingface_hub read to connect by name (gradio_client/client.py,
// _space_name_to_src and _get_space_state; huggingface_hub/hf_api.py, whoami), and refuses what else a Hub has.
func (a *API) registerSpaces(e *echo.Echo) {
	e.GET("/api/whoami-v2", a.whoami)
	e.GET("/api/spaces/:owner/:name", a.space(func(s Space, owner string) any {
		return info{
			ID: owner + "/" + s.Name, Author: owner, Private: s.Private, SDK: "gradio", Host: s.URL, Subdomain: s.Name,
			Tags: []string{"gradio"}, Siblings: []any{}, CardData: map[string]any{"title": s.Title, "sdk": "gradio", "sdk_version": s.SDKVersion},
			Runtime: s.runtime(),
		}
	}))
	e.GET("/api/spaces/:owner/:name/runtime", a.space(func(s Space, _ string) any { return s.runtime() }))
	e.GET("/api/spaces/:owner/:name/host", a.space(func(s Space, _ string) any {
		return map[string]string{"host": s.URL, "subdomain": s.Name}
	}))
	for _, path := range []string{"/:repo/resolve/*", "/:owner/:repo/resolve/*", "/:kind/:owner/:repo/resolve/*"} {
		e.Any(path, noFiles)
	}
	for _, path := range []string{"/api/*", "/:owner/:repo/info/lfs/*", "/oauth/*"} {
		e.Any(path, notTheHub)
	}
}

// whoami tells the person of a token. One of Hugging Face's own counts as none.
func (a *API) whoami(c echo.Context) error {
	who, err := a.config.Identify(c.Request())
	var unknown *people.UnknownTokenError
	switch {
	case errors.As(err, &unknown):
		return refuse(c, http.StatusUnauthorized, "", unknown.Error())
	case err != nil:
		return err
	case who.Kind != identity.User:
		return refuse(c, http.StatusUnauthorized, "", "this host knows people by tokens of its own (spacehost token create NAME), and this request brings none")
	}
	tier, err := a.config.TierOf(c.Request().Context(), who)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{
		"type": "user", "id": who.Key(), "name": who.Name, "fullname": who.Name, "isPro": tier.Authenticated == "pro", "orgs": []any{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]string{"displayName": "spacehost", "role": "read"}},
	})
}

// space answers about a Space that the caller may see; of others there is nothing, as on the Hub.
func (a *API) space(view func(s Space, owner string) any) echo.HandlerFunc {
	return func(c echo.Context) error {
		who, err := a.config.Identify(c.Request())
		var unknown *people.UnknownTokenError
		if errors.As(err, &unknown) {
			return refuse(c, http.StatusUnauthorized, "", unknown.Error())
		}
		if err != nil {
			return err
		}
		s, ok := a.config.Find(who, strings.ToLower(c.Param("name")))
		if !ok {
			return refuse(c, http.StatusNotFound, "RepoNotFound", "no Space of this host has that name (spacehost answers here, not the Hub)")
		}
		return c.JSON(http.StatusOK, view(s, c.Param("owner")))
	}
}

// onlySpaces is what whoever asks for more reads.
const onlySpaces = "this is spacehost and not the Hub: it knows the Spaces that run here and no models, data sets or files; " +
	"unset HF_ENDPOINT, or leave --by-name out, for what needs the Hub"

// notTheHub is 501, which no client tries again or takes for something that does not exist.
func notTheHub(c echo.Context) error { return refuse(c, http.StatusNotImplemented, "", onlySpaces) }

// noFiles says that there is no such repository: of all else huggingface_hub makes "check your connection"
// (file_download.py, _raise_on_head_call_error).
func noFiles(c echo.Context) error { return refuse(c, http.StatusNotFound, "RepoNotFound", onlySpaces) }

// refuse says it in the header that huggingface_hub shows (utils/_http.py, hf_raise_for_status) and in the body.
func refuse(c echo.Context, status int, code, text string) error {
	h := c.Response().Header()
	h.Set("X-Error-Message", text)
	if code != "" {
		h.Set("X-Error-Code", code)
	}
	return c.JSON(status, map[string]string{"error": text})
}

"""Addresses of embeddings and searches under /v1.

The id of a text is the whole rest of the path, decoded once: it may hold slashes and line breaks.
"""

from django.urls import path, re_path

from embeddings.api import (
    filter_views,
    index_views,
    job_views,
    reembedding_views,
    shaping_views,
    views,
)

_REST = r"(?P<owner>[^/]+)/(?P<project>[^/]+)/(?P<text_id>(?s:.+))\Z"

_PROJECT = "embeddings/<str:owner>/<str:project>"
_REEMBEDDING = "projects/<str:owner>/<str:project>/reembedding"

urlpatterns = [
    path(_PROJECT, views.Embeddings.as_view()),
    path(f"{_PROJECT}/count", filter_views.Count.as_view(), {"text_id": "count"}),
    path(f"{_PROJECT}/facets", filter_views.Facets.as_view(), {"text_id": "facets"}),
    path(f"{_PROJECT}/delete", filter_views.Deletion.as_view(), {"text_id": "delete"}),
    path(f"{_PROJECT}/update", filter_views.Update.as_view(), {"text_id": "update"}),
    re_path(rf"^embeddings/{_REST}", views.OneEmbedding.as_view()),
    path("similars", shaping_views.Across.as_view()),
    path("similars/<str:owner>/<str:project>", views.SimilarToQuery.as_view()),
    path("similars/<str:owner>/<str:project>/batch", shaping_views.Batch.as_view()),
    path("similars/<str:owner>/<str:project>/recall", index_views.Recall.as_view()),
    re_path(rf"^similars/{_REST}", views.SimilarToText.as_view()),
    path("projects/<str:owner>/<str:project>/index", index_views.Index.as_view()),
    path("projects/<str:owner>/<str:project>/index/rebuild", index_views.Rebuild.as_view()),
    path("projects/<str:owner>/<str:project>/embedding-jobs", job_views.Jobs.as_view()),
    path("projects/<str:owner>/<str:project>/embedding-jobs/<uuid:id>", job_views.OneJob.as_view()),
    path(
        "projects/<str:owner>/<str:project>/embedding-jobs/<uuid:id>/cancel",
        job_views.Cancellation.as_view(),
    ),
    path(
        "projects/<str:owner>/<str:project>/embedding-jobs/<uuid:id>/retry",
        job_views.Retry.as_view(),
    ),
    path(_REEMBEDDING, reembedding_views.Reembedding.as_view()),
    path(f"{_REEMBEDDING}/estimate", reembedding_views.Estimate.as_view()),
    path(f"{_REEMBEDDING}/comparison", reembedding_views.Comparison.as_view()),
    path(f"{_REEMBEDDING}/pause", reembedding_views.Pause.as_view()),
    path(f"{_REEMBEDDING}/resume", reembedding_views.Resume.as_view()),
    path(f"{_REEMBEDDING}/switch", reembedding_views.Switch.as_view()),
    path(f"{_REEMBEDDING}/rollback", reembedding_views.Rollback.as_view()),
    path("admin/sanity-check", views.SanityCheck.as_view()),
    path("admin/footgun", views.Reset.as_view()),
]

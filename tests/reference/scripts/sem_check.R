# second and third programs: OpenMx (FIML with definition variables, SLSQP) and glmmTMB (rr() mixed model, TMB autodiff)
suppressMessages({library(OpenMx); })
mx_fit <- function(d, eqs, structure, pat=NULL, optimizer="SLSQP", hess=TRUE, start=NULL, lb=NA, seed=11) {
  ys<-names(eqs); K<-length(ys); xs<-unique(unlist(lapply(eqs,function(e) e$x))); P<-length(xs); t0<-proc.time()[3]
  mxOption(NULL,"Default optimizer",optimizer); mxOption(NULL,"Number of Threads",1)
  d <- d[,c(ys,xs)]; drop <- rowSums(!is.na(d[,ys,drop=FALSE]))==0; d<-d[!drop,]; ysd<-sapply(ys,function(y) sd(d[[y]],na.rm=TRUE)); nob<-sapply(ys,function(y) sum(!is.na(d[[y]]))); for(y in ys) d[[y]]<-d[[y]]/ysd[[y]]
  b0<-rep(0,K); Bv<-matrix(0,max(P,1),K); Bf<-matrix(FALSE,max(P,1),K); sv<-rep(1,K); R<-matrix(NA,nrow(d),K)
  for (j in 1:K) { e<-eqs[[j]]; fm<-reformulate(c(if(length(e$x)) e$x else "1"), ys[j], intercept=e$const); o<-lm(fm,d,na.action=na.exclude)
    cf<-coef(o); if (e$const) b0[j]<-cf["(Intercept)"]; for (x in e$x) {Bv[match(x,xs),j]<-cf[x];Bf[match(x,xs),j]<-TRUE}; sv[j]<-mean(resid(o)^2,na.rm=TRUE) }
  parts<-list(mxMatrix("Full",1,K,free=sapply(eqs,function(e) e$const),values=b0,name="b0"))
  if (P) { parts<-c(parts,mxMatrix("Full",P,K,free=Bf,values=Bv,name="B"),mxMatrix("Full",1,P,free=FALSE,labels=paste0("data.",xs),name="X"),mxAlgebra(b0+X%*%B,name="M")) 
  } else parts<-c(parts,mxAlgebra(b0*1,name="M"))
  if (structure=="factor") { k<-ncol(pat); set.seed(seed)
    parts<-c(parts,mxMatrix("Full",K,k,free=pat==1,values=ifelse(pat==1,(if(seed==11) (0.5+0.2*runif(K*k)) else rnorm(K*k,0,.6))*sqrt(sv),0),name="L"),
      mxMatrix("Diag",K,K,free=TRUE,values=0.6*sv,lbound=if(is.na(lb)) NA else diag(lb,K),name="D"),mxAlgebra(L%*%t(L)+D,name="S"))
  } else if (structure=="full") parts<-c(parts,mxMatrix("Symm",K,K,free=TRUE,values=diag(sv),name="S"))
  else parts<-c(parts,mxMatrix("Diag",K,K,free=TRUE,values=sv,name="S"))
  m<-do.call(mxModel,c(list("m"),parts,list(mxData(d,"raw"),mxExpectationNormal("S","M",dimnames=ys),mxFitFunctionML())))
  m<-mxOption(m,"Calculate Hessian",if(hess)"Yes" else "No"); m<-mxOption(m,"Standard Errors",if(hess)"Yes" else "No")
  m<-mxOption(m,"Optimality tolerance","1e-14"); m<-mxOption(m,"Major iterations",1000)
  r<-suppressWarnings(mxRun(m,silent=TRUE)); code<-r$output$status$code
  for (i in 1:3) { r2<-suppressWarnings(mxRun(r,silent=TRUE)); dl<-r$output$fit-r2$output$fit; r<-r2; code<-r$output$status$code; if (abs(dl)<1e-9) break }
  S<-mxEval(S,r); if (structure!="factor"&&structure!="full") S<-diag(diag(S)); S<-S*outer(unname(ysd),unname(ysd)); bb<-mxEval(b0,r); BB<-if(P) mxEval(B,r) else NULL; B<-list(); SE<-list()
  for (j in 1:K) { b<-list(); s<-list(); e<-eqs[[j]]; if(e$const){b$const<-bb[1,j]*ysd[[j]]}; for(x in e$x) b[[x]]<-BB[match(x,xs),j]*ysd[[j]]; B[[ys[j]]]<-b }
  if (hess) { se<-r$output$standardErrors; g<-function(n) {v<-se[n,1]; unname(v)}
    for (j in 1:K) {s<-list(); e<-eqs[[j]]; if(e$const) s$const<-ysd[[j]]*g(paste0("m.b0[1,",j,"]")); for(x in e$x) s[[x]]<-ysd[[j]]*g(paste0("m.B[",match(x,xs),",",j,"]")); SE[[ys[j]]]<-s} }
  list(program=paste("OpenMx",packageVersion("OpenMx"),optimizer),coefficients=B,sigma=unname(S),loglik=-r$output$fit/2-sum(nob*log(ysd)),se_observed=if(hess) SE else NULL,status=code,seconds=unname(proc.time()[3]-t0))
}
tmb_fit <- function(d, eqs, k) {
  ys<-names(eqs);K<-length(ys);t0<-proc.time()[3];N<-nrow(d); rows<-list(); nm<-c()
  long<-data.frame(id=factor(rep(1:N,K)),eq=factor(rep(ys,each=N),levels=ys),y=unlist(d[,ys]))
  sc<-sapply(ys,function(y) sd(d[[y]],na.rm=TRUE))
  for (j in 1:K){ e<-eqs[[j]]; for (x in c(if(e$const)"const",e$x)) { v<-rep(0,N*K); v[(j-1)*N+1:N]<-if(x=="const")1 else d[[x]]; n<-paste0("v",length(nm)+1); long[[n]]<-v; nm<-c(nm,paste0(ys[j],":",x)) } }
  long<-long[!is.na(long$y),]
  vn<-paste0("v",seq_along(nm)); f<-as.formula(paste("y ~ 0 +",paste(vn,collapse="+"),"+ rr(0+eq|id, d=",k,")"))
  best<-NULL
  for (oc in 1:2) { ctl<-if(oc==1) glmmTMBControl(optCtrl=list(iter.max=5000,eval.max=10000,rel.tol=1e-12,x.tol=1e-10)) else glmmTMBControl(optimizer=optim,optArgs=list(method="BFGS"),optCtrl=list(maxit=5000,reltol=1e-14))
    m<-try(suppressWarnings(suppressMessages(glmmTMB(f,dispformula=~0+eq,data=long,family=gaussian(),REML=FALSE,control=ctl))),silent=TRUE)
    if(!inherits(m,"try-error") && (is.null(best)|| m$fit$objective< best$fit$objective)) best<-m }
  if (is.null(best)) return(NULL); m<-best
  b<-setNames(fixef(m)$cond,nm); L<-m$obj$env$report(m$fit$parfull)$fact_load[[1]]; D<-exp(fixef(m)$disp)
  V<-try(suppressWarnings(vcov(m)$cond),silent=TRUE)
  list(program=paste("glmmTMB",packageVersion("glmmTMB")),coefficients=unflat(b),sigma=unname(L%*%t(L)+diag(D)),loglik=-m$fit$objective,se_observed=if(inherits(V,"try-error")) NULL else unflat(setNames(sqrt(diag(V)),nm)),convergence=m$fit$convergence,message=m$fit$message,maxgrad=max(abs(m$obj$gr(m$fit$par))),seconds=unname(proc.time()[3]-t0))
}
agree <- function(a,b) { # a = lavaan fit, b = other program
  se<-unlist(a$se$expected); ca<-unlist(a$coefficients); cb<-unlist(b$coefficients)[names(ca)]; s<-sqrt(diag(a$sigma))
  o<-list(other=b$program, max_coef_diff_in_se=max(abs(ca-cb)/se), max_coef_abs_diff=max(abs(ca-cb)), max_sigma_diff_scaled=max(abs(a$sigma-b$sigma)/outer(s,s)), loglik_diff=b$loglik-a$loglik_y_given_x, seconds=b$seconds)
  if (!is.null(b$se_observed)) { so<-unlist(a$se$observed); sb<-unlist(b$se_observed)[names(so)]; o$max_rel_se_observed_diff<-max(abs(so/sb-1)) }
  o$status<-b$status; o$convergence<-b$convergence; o
}
